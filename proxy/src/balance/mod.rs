//! The balancer: picks an endpoint, or waits for one.
