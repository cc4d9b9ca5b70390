//! Builds everything once, top to bottom, in the order data flows.
