//! The testkit: pods as network namespaces, a control plane beside them, applications in them, and what they saw.
//!
//! | module | holds |
//! |---|---|
//! | [`mesh`] | a control plane, its manifests, and the pods that it knows |
//! | [`pod`] | a network namespace with an address, on a bridge |
//! | [`process`] | a program that runs in a pod under a user of its own, and its log |
//! | [`app`] | the applications: nginx, MariaDB, PostgreSQL, a gRPC greeter, and small ones of our own |
//! | [`manifest`] | Kubernetes manifests |
//! | [`recorder`] | an application that records every byte |
//! | [`h2raw`] | HTTP/2 as nobody should speak it |
//! | [`crowd`] | many connections at the same time |
//! | [`steady`] | requests at a steady rate, and how every connection ended |
//! | [`http`], [`load`], [`tls`], [`metrics`], [`capture`], [`sockets`] | what tests say and read on the wire |
//! | [`wait`] | waiting for a condition |
//!
//! Everything here needs root, and panics with a reason when what it is asked for does not happen. Nothing has a name
//! outside this process: its namespaces and processes end with it, whichever way it ends.
#![allow(clippy::unwrap_used, reason = "a testkit fails the test")]

pub mod app;
pub mod capture;
pub mod crowd;
mod dns;
pub mod h2raw;
pub mod http;
pub mod load;
pub mod manifest;
pub mod mesh;
pub mod metrics;
pub mod pod;
pub mod process;
pub mod recorder;
pub mod sockets;
pub mod steady;
pub mod tls;
pub mod wait;
