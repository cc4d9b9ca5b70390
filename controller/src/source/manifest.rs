//! Manifests: the text of one file, read into objects. All of it, or an error with its line.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::resources::object::{self, Located, Object};
use crate::resources::policy::{self, ManifestReader};
use crate::resources::refused::Unusable;
use crate::resources::report::Origin;
use crate::source::documents::{self, Document};

/// Most documents and list items that a file may hold.
pub const MAX_OBJECTS: usize = 100_000;

/// Most parser events of a document: scalars, beginnings and ends of lists and maps.
const MAX_EVENTS: usize = 8_000_000;

/// Why a file can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The line, from 1; 0 when none is known.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// Reads every object of a file that concerns a mesh. JSON is read as the YAML that it also is.
pub fn read(file: &Arc<Path>, text: &str) -> Result<Vec<Located>, ManifestError> {
    let mut found = Vec::new();
    let mut seen = 0;
    for document in documents::split(text) {
        for (line, manifest) in manifests(document)? {
            seen += 1;
            if seen > MAX_OBJECTS {
                let reason = format!("more than {MAX_OBJECTS} objects in one file: split it");
                return Err(ManifestError { line, reason });
            }
            let read = object::read(&manifest).map_err(|error| explain(document, line, &manifest, &error))?;
            match read {
                Some((id, mut object)) => {
                    if let Object::Unusable(unusable) = &mut object {
                        locate(document, line, &manifest, unusable);
                    }
                    found.push(Located {
                        id,
                        origin: Origin {
                            file: file.clone(),
                            line,
                        },
                        object,
                    });
                }
                None => tracing::debug!(file = %file.display(), line, "a kind that no mesh needs"),
            }
        }
    }
    Ok(found)
}

/// A list, as `kubectl get -o yaml` writes it.
#[derive(Deserialize)]
struct List {
    items: Vec<Spanned<Value>>,
}

/// The manifests of a document with their lines: one, or the items of a `List`.
fn manifests(document: Document<'_>) -> Result<Vec<(u64, Value)>, ManifestError> {
    let line = document.line().unwrap_or(document.first_line);
    let manifest: Value = yaml(document)?;
    let item_kind = match manifest["kind"]
        .as_str()
        .and_then(|kind| kind.strip_suffix("List"))
    {
        Some(kind) if kind.is_empty() || manifest["items"].is_array() => kind,
        _ if manifest.is_null() => return Ok(Vec::new()),
        _ => return Ok(vec![(line, manifest)]),
    };
    let list: List = yaml(document)?;
    let items = list.items.into_iter().map(|item| {
        let line = document.first_line + item.defined.line().saturating_sub(1);
        (line, with_type(item.value, item_kind, &manifest["apiVersion"]))
    });
    Ok(items.collect())
}

/// The items of a typed list (`PodList`) may leave out their own kind.
fn with_type(mut item: Value, kind: &str, api_version: &Value) -> Value {
    if let Some(fields) = item.as_object_mut()
        && !kind.is_empty()
    {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields.entry("apiVersion").or_insert_with(|| api_version.clone());
    }
    item
}

/// Reads a document. `yes` and `on` are strings where no boolean is asked for, as Kubernetes' own fields are typed.
fn yaml<T: DeserializeOwned>(document: Document<'_>) -> Result<T, ManifestError> {
    parse(document, false)
}

/// Reads a document; `quoted`: a string must be quoted where it looks like a number or a boolean.
fn parse<T: DeserializeOwned>(document: Document<'_>, quoted: bool) -> Result<T, ManifestError> {
    // A document has no more events than characters; what aliases add is bounded by its length, too.
    let events = document
        .text
        .len()
        .saturating_mul(4)
        .saturating_add(10_000)
        .min(MAX_EVENTS);
    let options = serde_saphyr::options! {
        strict_booleans: true,
        no_schema: quoted,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: events,
            max_nodes: events,
        },
    };
    serde_saphyr::from_str_with_options(document.text, options).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line().max(1));
        ManifestError {
            line: document.first_line + line - 1,
            reason: reason(&error.to_string()),
        }
    })
}

/// Finds the line of a value that doesn't fit its field, by reading the document again as the type that it has.
fn explain(document: Document<'_>, line: u64, manifest: &Value, error: &serde_json::Error) -> ManifestError {
    let kind = manifest["kind"].as_str();
    let name = manifest["metadata"]["name"].as_str();
    let object = format!(
        "{} {}",
        kind.unwrap_or("an object"),
        name.unwrap_or("without a name")
    );
    let is_item = document.line() != Some(line);
    let (line, reason) = match kind.filter(|_| !is_item).and_then(|kind| misfit(document, kind)) {
        Some((line, Some(reason))) => (line, reason),
        Some((line, None)) => (line, error.to_string()),
        None => (line, error.to_string()),
    };
    ManifestError {
        line,
        reason: format!("{object}: {reason}"),
    }
}

/// The text of a document, read as policies are: as the types that their fields have, or with strings in quotes.
struct Text<'a> {
    document: Document<'a>,
    quoted: bool,
}

impl ManifestReader for Text<'_> {
    type Error = ManifestError;

    fn manifest<S: DeserializeOwned>(&self) -> Result<policy::Manifest<S>, ManifestError> {
        parse(self.document, self.quoted)
    }
}

/// Finds the line of what is wrong with a policy, by reading its text as the type that it should have.
fn locate(document: Document<'_>, line: u64, manifest: &Value, unusable: &mut Unusable) {
    let (Some(api_version), Some(kind)) = (manifest["apiVersion"].as_str(), manifest["kind"].as_str()) else {
        return;
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    // An item of a list has no text of its own.
    if document.line() != Some(line) {
        return;
    }
    let misfit = |quoted| policy::read(group, version, kind, &Text { document, quoted })?.err();
    if let Some(error) = misfit(false) {
        (unusable.line, unusable.reason) = (Some(error.line), error.reason);
    } else if let Some(error) = misfit(true) {
        unusable.line = Some(error.line);
    }
}

/// The line of the first value that doesn't fit, and the reason where this reading knows it better.
fn misfit(document: Document<'_>, kind: &str) -> Option<(u64, Option<String>)> {
    fn of<T: DeserializeOwned>(document: Document<'_>) -> Option<(u64, Option<String>)> {
        if let Err(error) = yaml::<T>(document) {
            return Some((error.line, Some(error.reason)));
        }
        // A number where a string belongs.
        parse::<T>(document, true).err().map(|error| (error.line, None))
    }
    match kind {
        "Namespace" => of::<Namespace>(document),
        "Node" => of::<Node>(document),
        "Service" => of::<Service>(document),
        "Pod" => of::<Pod>(document),
        "ServiceAccount" => of::<ServiceAccount>(document),
        "EndpointSlice" => of::<EndpointSlice>(document),
        _ => None,
    }
}

/// The parser's message on one line, without the place, which is counted from the document's beginning, and without
/// advice for programmers.
fn reason(message: &str) -> String {
    let message = message
        .rsplit_once(" at line ")
        .map_or(message, |(message, _)| message);
    let message = message
        .split_once(", set DuplicateKeyPolicy")
        .map_or(message, |(message, _)| message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Located>, ManifestError> {
        read(&Arc::from(Path::new("demo.yaml")), text)
    }

    #[test]
    fn a_list_is_taken_apart_and_its_items_know_their_lines() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- \
                    apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n";
        let seen: Vec<_> = read_text(list)
            .unwrap()
            .into_iter()
            .map(|l| (l.id.to_string(), l.origin.line))
            .collect();
        assert_eq!(seen, [("Namespace a".into(), 4), ("Service default/b".into(), 7)]);
    }

    #[test]
    fn an_item_of_a_typed_list_takes_its_kind_from_the_list() {
        let list = "{\"apiVersion\": \"v1\", \"kind\": \"PodList\",\n\t\"items\": [{\"metadata\": {\"name\": \"a\"}}]}";
        assert_eq!(read_text(list).unwrap()[0].id.to_string(), "Pod default/a");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_line() {
        let error =
            read_text("kind: A\napiVersion: v1\nmetadata: {name: x}\n---\na: b\n c: [\n").unwrap_err();
        assert!(error.line >= 6, "{error:?}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_line() {
        let service =
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: eighty\n";
        let error = read_text(service).unwrap_err();
        assert_eq!(error.line, 8, "{error:?}");
        assert!(error.reason.starts_with("Service web: "), "{error:?}");
    }

    #[test]
    fn a_number_where_a_string_belongs_is_refused_with_its_line() {
        let service = "\nkind: Service\napiVersion: v1\nmetadata:\n  name: web\n  annotations:\n    \
                       config.linkerd.io/opaque-ports: 3306\n";
        let error = read_text(service).unwrap_err();
        assert_eq!(error.line, 7, "{error:?}");
        assert!(error.reason.contains("expected a string"), "{error:?}");
    }

    #[test]
    fn a_manifest_without_kind_or_name_is_refused() {
        assert!(read_text("apiVersion: v1\n").unwrap_err().reason.contains("kind"));
        let error = read_text("\napiVersion: v1\nkind: Pod\nmetadata: {}\n").unwrap_err();
        assert!(error.reason.contains("name") && error.line == 2, "{error:?}");
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let level = |n: u32| format!("l{n}: &l{n} [{}]\n", vec![format!("*l{}", n - 1); 10].join(", "));
        let bomb: String = (1..12).map(level).collect();
        let error = read_text(&format!("kind: A\nl0: &l0 x\n{bomb}")).unwrap_err();
        assert!(error.line > 2, "{error:?}");
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(read_text(&format!("a: {}", "[".repeat(100_000))).is_err());
        assert!(read_text(&format!("a:\n{}", "- ".repeat(10_000))).is_err());
    }

    #[test]
    fn kinds_of_no_concern_are_passed_over() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n# nothing here\n";
        assert!(read_text(text).unwrap().is_empty());
    }
}
