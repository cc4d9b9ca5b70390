//! Transparent redirection of a pod's TCP connections to the proxy: flags in, `nat` rules out, checked afterwards.

pub mod apply;
pub mod check;
pub mod config;
pub mod error;
pub mod flags;
pub mod ports;
pub mod rules;
pub mod run;
pub mod sysctl;
pub mod tools;
