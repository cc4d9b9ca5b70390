//! How knowledge arrives: policies, endpoints, certificates.
