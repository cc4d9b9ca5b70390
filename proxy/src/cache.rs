//! Entries that live while they are used, and a while longer.
