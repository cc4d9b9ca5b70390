//! What is known of one variable.

use std::marker::PhantomData;

use crate::config::value::Value;

/// One row of the table of variables.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in the environment.
    pub name: &'static str,
    /// Other names that are read when the first is not set, in order.
    pub aliases: &'static [&'static str],
    /// The kind of value.
    pub kind: &'static str,
    /// What holds when it is not set, in the grammar of its kind.
    pub default: Option<&'static str>,
    /// What it does, one line of text per item.
    pub help: &'static [&'static str],
    /// Whether this version acts on it.
    pub built: Built,
    /// Reads a value and forgets it.
    pub check: fn(&str) -> Result<(), String>,
}

/// Whether this version acts on a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// It does.
    Yes,
    /// It lacks this capability: a value is validated, and a warning says that it has no effect.
    No(&'static str),
    /// It refines this capability, which is lacking: a value is validated, without a warning of its own.
    Follows(&'static str),
}

/// A variable with a default.
#[derive(Clone, Copy, Debug)]
pub struct Var<T> {
    /// Its row of the table.
    pub row: Row,
    /// The default, in the grammar of `T`.
    pub default: &'static str,
    kind: PhantomData<fn() -> T>,
}

/// A variable that may stay unset.
#[derive(Clone, Copy, Debug)]
pub struct OptionalVar<T> {
    /// Its row of the table.
    pub row: Row,
    kind: PhantomData<fn() -> T>,
}

impl<T> Var<T> {
    /// The variable of this row.
    pub const fn new(row: Row, default: &'static str) -> Self {
        let kind = PhantomData;
        Self { row, default, kind }
    }
}

impl<T> OptionalVar<T> {
    /// The variable of this row.
    pub const fn new(row: Row) -> Self {
        Self {
            row,
            kind: PhantomData,
        }
    }
}

/// Reads a value and forgets it.
pub fn check<T: Value>(text: &str) -> Result<(), String> {
    T::parse(text).map(drop)
}
