//! The admin server: probes and metrics.
