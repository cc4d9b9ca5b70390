//! The program against a real kernel: each test in network namespaces of its own, as root, never skipped.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod backends;
mod netns;
mod pod;
mod tables;
mod traffic;
