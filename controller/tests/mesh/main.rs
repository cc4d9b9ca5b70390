//! What the controller tells proxies about `examples/mesh`, and about small meshes beside it, over gRPC as they ask.

#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod egress;
mod endpoints;
mod examples;
mod explain;
mod hostile;
mod inbound;
mod outbound;
mod policies;
mod profiles;
mod routes;
mod servers;
mod support;
