//! Peak EWMA: a load estimate that rises at once and decays over time.
