//! A mesh on this machine: a control plane, pods with proxies, and applications that know nothing of it. As root.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod access;
mod attackers;
mod backlog;
mod control_plane;
mod differential;
mod drain;
mod enforced;
mod examples;
mod gateway;
mod h2_abuse;
mod hostile;
mod http1;
mod http2;
mod informational;
mod ingress;
mod lifecycle;
mod mirrors;
mod pools;
mod rolling;
mod routes;
mod seen;
mod slow;
mod soak;
mod streams;
mod traffic;
