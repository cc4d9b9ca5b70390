//! Mutual TLS between meshed pods.
