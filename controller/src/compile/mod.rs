//! What proxies are told, worked out from the cluster. Pure: no I/O, no clock.
//!
//! | module | answers |
//! |---|---|
//! | [`endpoints`] | which addresses are behind a Service, and how to speak to them (`Destination.Get`) |
//! | [`profile`] | what is at an address (`Destination.GetProfile`) |
//! | [`outbound`] | how a destination is used (`OutboundPolicies`) |
//! | [`inbound`] | what a pod's port accepts (`InboundServerPolicies`), by its Server ([`server`]) or by default |
//! | [`authorization`] | who may connect, and use a route |
//! | [`mod@matches`], [`filters`], [`backends`], [`routes`] | what routes say, lowered |
//! | [`attached`] | which routes and profiles a destination has |
//! | [`extensions`] | what only our own proxies are told |
//! | [`egress`] | how addresses outside the cluster are used |

pub mod attached;
pub mod authorization;
pub mod backends;
pub mod client;
pub mod egress;
pub mod endpoints;
pub mod extensions;
pub mod filters;
pub mod inbound;
pub mod matches;
pub mod outbound;
pub mod profile;
pub mod refusal;
pub mod routes;
pub mod server;
pub mod service_name;
pub mod settings;
