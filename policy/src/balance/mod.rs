//! Load balancing: two random choices over a peak-EWMA load estimate.

pub mod ewma;
pub mod p2c;
pub mod penalty;
