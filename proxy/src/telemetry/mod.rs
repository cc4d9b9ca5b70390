//! What is observed: metrics, logs.
