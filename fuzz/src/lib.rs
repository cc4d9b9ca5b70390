//! Fuzzing: every parser of first bytes and of names. `make test` runs the same targets over `seeds/` and at random.

pub mod targets;
