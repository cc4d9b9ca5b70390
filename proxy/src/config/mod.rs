//! Configuration: plain parsed values, one struct per room that reads it.
