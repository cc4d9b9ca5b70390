//! The floors hold: a room of `proxy/src` imports lower floors and itself, and a child never imports its parent.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room's floor, as `ARCHITECTURE.md` draws them. Rooms on the same floor never import each other.
const FLOORS: &[(&str, u8)] = &[
    ("main", 10),
    ("app", 9),
    ("gateway", 8),
    ("outbound", 7),
    ("inbound", 7),
    ("exchange", 6),
    ("balance", 5),
    ("admin", 5),
    ("control", 4),
    ("http", 4),
    ("tls", 3),
    ("net", 2),
    ("telemetry", 2),
    ("config", 1),
    ("error", 1),
    ("room", 1),
    ("live", 0),
    ("cache", 0),
    ("drain", 0),
    ("reclaim", 0),
];

#[test]
fn every_import_goes_downward() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    assert!(files.len() > FLOORS.len(), "only {} files found", files.len());
    let found: Vec<String> = files
        .iter()
        .filter(|file| !file.ends_with("lib.rs"))
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a source file is readable");
            violations(file.strip_prefix(&source).expect("it lies in the source"), &text)
        })
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn an_upward_import_is_found() {
    let check = |file: &str, text: &str| violations(Path::new(file), text).len();
    assert_eq!(check("net/io.rs", "use crate::telemetry::Counter;"), 1);
    assert_eq!(check("outbound/http.rs", "use crate::inbound::local;"), 1);
    assert_eq!(
        check("http/pool.rs", "use crate::{error::Fault, control::dns};"),
        1
    );
    assert_eq!(
        check(
            "net/io.rs",
            "use crate::{\n    config::{A, B},\n    admin,\n    tls::{C},\n};"
        ),
        2
    );
    assert_eq!(check("cache.rs", "fn f(x: &crate::nowhere::X) {}"), 1);
    assert_eq!(check("pantry/mod.rs", "//! A room that is not in the table."), 1);
    assert_eq!(
        check("app.rs", "use crate::outbound;\nuse crate::{admin, tls};"),
        0
    );
}

#[test]
fn a_child_that_imports_its_parent_is_found() {
    let check = |text: &str| violations(Path::new("net/io.rs"), text).len();
    assert_eq!(check("use super::Accepted;"), 1);
    assert_eq!(check("use crate::net::Accepted;"), 1);
    assert_eq!(check("use crate::net::listen::Accepted;"), 0);
    assert_eq!(check("#[cfg(test)]\nmod tests {\n    use super::*;\n}"), 0);
    assert_eq!(
        check("#[cfg(test)]\npub(crate) mod testing {\n    use super::*;\n}"),
        0
    );
}

/// What is wrong with a file, each with the offending pair.
fn violations(file: &Path, text: &str) -> Vec<String> {
    let name = file.display();
    let first = file.iter().next().map(Path::new).and_then(Path::file_stem);
    let room = first.and_then(|stem| stem.to_str()).unwrap_or_default();
    let Some(floor) = floor_of(room) else {
        return vec![format!("{name}: the room `{room}` is not in the table of floors")];
    };
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for path in crate_paths(&code) {
        let to = path.split("::").next().unwrap_or_default();
        match floor_of(to) {
            _ if to == room => {}
            Some(below) if below < floor => {}
            Some(other) => found.push(format!(
                "{name}: `{room}` (floor {floor}) imports `{to}` (floor {other})"
            )),
            None => found.push(format!(
                "{name}: imports `{to}`, which is not in the table of floors"
            )),
        }
    }
    // What tests of other rooms share stands in a test module that they can see.
    let tests_begin = ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(crate) mod "];
    let ends = tests_begin.iter().filter_map(|begin| code.find(begin));
    let production = &code[..ends.min().unwrap_or(code.len())];
    if is_child(file) && !is_test(file) {
        let parent = format!("{room}::");
        let of_parent = |path: &String| {
            path.strip_prefix(&parent)
                .is_some_and(|rest| rest.starts_with(char::is_uppercase))
        };
        let named = crate_paths(production).into_iter().filter(of_parent);
        found.extend(named.map(|path| format!("{name}: a child imports its parent: `crate::{path}`")));
    }
    if !is_test(file) && production.contains("use super::") {
        found.push(format!("{name}: `use super::` outside a test module"));
    }
    found
}

/// What follows each `crate::` in the code; a group is taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        if code[..at].ends_with(word) {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(group_items(group)),
            None => {
                let end = rest.find(|c: char| !word(c) && c != ':');
                paths.push(rest[..end.unwrap_or(rest.len())].to_owned());
            }
        }
    }
    paths
}

/// The items of a `use` group, up to its closing brace. Groups within them are not taken apart.
fn group_items(group: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in group.chars().filter(|c| !c.is_whitespace()) {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ => items.last_mut().expect("there is always one").push(c),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn floor_of(room: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

fn is_child(file: &Path) -> bool {
    file.components().count() > 1 && !file.ends_with("mod.rs")
}

fn is_test(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part == "tests.rs")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a source folder is readable");
    let paths = entries.map(|entry| entry.expect("an entry is readable").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
