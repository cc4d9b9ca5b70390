//! What proxies are told, worked out from the cluster. Pure: no I/O, no clock.
//!
//! | module | answers |
//! |---|---|
//! | [`endpoints`] | which addresses are behind a Service, and how to speak to them (`Destination.Get`) |
//! | [`profile`] | what is at an address (`Destination.GetProfile`) |
//! | [`outbound`] | how a destination is used (`OutboundPolicies`) |
//! | [`inbound`] | what a pod's port accepts (`InboundServerPolicies`) |

pub mod client;
pub mod endpoints;
pub mod inbound;
pub mod outbound;
pub mod profile;
pub mod refusal;
pub mod service_name;
pub mod settings;
