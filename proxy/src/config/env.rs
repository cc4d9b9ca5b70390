//! `Reader`: reads variables through a lookup function, and keeps every error and warning for the end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use crate::config::row::{Built, OptionalVar, Row, Var};
use crate::config::value::Value;

/// How variables are looked up: the process environment, or a map in tests.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Every reason why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A value that its grammar does not admit.
    Invalid {
        /// The variable.
        name: &'static str,
        /// The value, shortened.
        value: String,
        /// What would have been right.
        reason: String,
    },
    /// A variable that has to be set.
    Missing {
        /// The variable.
        name: &'static str,
        /// Why, or when.
        reason: &'static str,
    },
    /// Values that contradict each other.
    Conflict(String),
}

/// Something that is not as it was meant, though the proxy can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

/// Reads variables, and remembers what was wrong.
pub struct Reader<'a> {
    lookup: Lookup<'a>,
    errors: Vec<Error>,
    warnings: Vec<Warning>,
}

/// The value of a variable of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub fn process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// All variables of this process, as text; bytes that are none become `\u{fffd}`.
pub fn all() -> BTreeMap<String, String> {
    let text = |value: OsString| value.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// The names of this process's variables that begin like ours, and that nothing reads.
pub fn unknown(is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<_> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("LINKERD2_PROXY_") && !is_known(name))
        .collect();
    names.sort();
    names
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing.
    pub fn new(lookup: Lookup<'a>) -> Self {
        Self {
            lookup,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The value of a variable, or its default.
    pub fn read<T: Value>(&mut self, var: &Var<T>) -> T {
        self.parse(&var.row).unwrap_or_else(|| {
            T::parse(var.default).expect("a test reads every default of the table with its own parser")
        })
    }

    /// The value of a variable, if it is set.
    pub fn optional<T: Value>(&mut self, var: &OptionalVar<T>) -> Option<T> {
        self.parse(&var.row)
    }

    /// The value of a variable that has to be set; `None` is an error that has been recorded.
    pub fn required<T: Value>(&mut self, var: &OptionalVar<T>, reason: &'static str) -> Option<T> {
        if !self.is_set(&var.row) {
            self.missing(&var.row, reason);
        }
        self.parse(&var.row)
    }

    /// The value of a variable whose errors are not worth refusing to run: they become warnings.
    pub fn lenient<T: Value>(&mut self, row: &Row) -> Option<T> {
        let errors = self.errors.len();
        let value = self.parse(row);
        for error in self.errors.split_off(errors) {
            self.warnings.push(Warning(format!("{error}; it is ignored")));
        }
        value
    }

    /// Whether the variable is set, under any of its names, to whatever.
    pub fn is_set(&self, row: &Row) -> bool {
        self.find(row).is_some()
    }

    /// Records that a variable is missing.
    pub fn missing(&mut self, row: &Row, reason: &'static str) {
        let name = row.name;
        self.errors.push(Error::Missing { name, reason });
    }

    /// Records that values contradict each other.
    pub fn conflict(&mut self, reason: String) {
        self.errors.push(Error::Conflict(reason));
    }

    /// Records something that whoever runs the proxy should know.
    pub fn warn(&mut self, text: String) {
        self.warnings.push(Warning(text));
    }

    /// Validates the variables that this version does not act on, and warns of each lacking capability that is asked for.
    pub fn check_not_built(&mut self, rows: &[Row]) {
        let mut asked: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.built != Built::Yes) {
            let Some((name, text)) = self.text(row) else {
                continue;
            };
            if let Err(reason) = (row.check)(&text) {
                self.invalid(name, &text, reason);
            } else if let Built::No(capability) = row.built
                && row.default != Some(text.as_str())
            {
                asked.entry(capability).or_default().push(name);
            }
        }
        for (capability, names) in asked {
            let names = names.join(", ");
            self.warn(format!("this version has no {capability}: {names} has no effect"));
        }
    }

    /// What was wrong: errors that refuse the configuration, and warnings.
    pub fn finish(self) -> (Errors, Vec<Warning>) {
        (Errors(self.errors), self.warnings)
    }

    fn parse<T: Value>(&mut self, row: &Row) -> Option<T> {
        let (name, text) = self.text(row)?;
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.invalid(name, &text, reason);
                None
            }
        }
    }

    fn text(&mut self, row: &Row) -> Option<(&'static str, String)> {
        let (name, value) = self.find(row)?;
        match value.into_string() {
            Ok(text) => Some((name, text)),
            Err(value) => {
                let reason = "it is not valid Unicode".to_owned();
                self.invalid(name, &value.to_string_lossy(), reason);
                None
            }
        }
    }

    fn find(&self, row: &Row) -> Option<(&'static str, OsString)> {
        let names = std::iter::once(&row.name).chain(row.aliases);
        names
            .into_iter()
            .find_map(|name| Some((*name, (self.lookup)(name)?)))
    }

    /// A required variable is asked for twice, for its presence and for its value: one error is enough.
    fn invalid(&mut self, name: &'static str, text: &str, reason: String) {
        let value = shortened(text);
        let error = Error::Invalid { name, value, reason };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

/// Enough of a value to recognise it by: certificates and tokens do not belong into logs.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("errors", &self.errors)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { name, value, reason } => write!(f, "{name}={value:?} is not valid: {reason}"),
            Self::Missing { name, reason } => write!(f, "{name} must be set: {reason}"),
            Self::Conflict(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Errors {
    /// One line per error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl std::error::Error for Errors {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
