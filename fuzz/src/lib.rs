//! Fuzzing: every parser of first bytes, names, messages and variables. `make test` runs the same targets over `seeds/` and at random.

pub mod targets;
