//! The wire contract: Linkerd's gRPC APIs and the transport header, generated from `api/*.proto`.
//!
//! Each module bears the name of its package's last part: messages stand in it, clients and servers in modules of
//! its own (`destination::destination_client::DestinationClient`). A field that the contract has and this version
//! does not honour is here too: what reads a message can refuse it, and what writes one can be complete.

/// The gRPC metadata with which a proxy says, when it asks for outbound policies, that it reads our own fields (numbers
/// from 50000). Others are never told of rules that they would follow in part.
pub const EXTENSIONS: &str = "outrigger-extensions";

pub mod decode;
pub mod encode;

/// A package of the contract, as generated.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_debug_implementations, unused_qualifications, unreachable_pub, clippy::all)]
        #[allow(clippy::large_futures, clippy::or_fun_call, clippy::unwrap_used, clippy::use_self)]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

package!(
    /// Endpoints and profiles of destinations.
    destination,
    "io.linkerd.proxy.destination"
);
package!(
    /// Matchers and filters of gRPC routes.
    grpc_route,
    "io.linkerd.proxy.grpc_route"
);
package!(
    /// Matchers and filters of HTTP routes.
    http_route,
    "io.linkerd.proxy.http_route"
);
package!(
    /// Methods, schemes and headers.
    http_types,
    "io.linkerd.proxy.http_types"
);
package!(
    /// Certificates for workloads.
    identity,
    "io.linkerd.proxy.identity"
);
package!(
    /// Policies of ports.
    inbound,
    "io.linkerd.proxy.inbound"
);
package!(
    /// References to Kubernetes objects.
    meta,
    "io.linkerd.proxy.meta"
);
package!(
    /// Addresses and networks.
    net,
    "io.linkerd.proxy.net"
);
package!(
    /// Filters of opaque and TLS routes.
    opaque_route,
    "io.linkerd.proxy.opaque_route"
);
package!(
    /// Policies of destinations.
    outbound,
    "io.linkerd.proxy.outbound"
);
package!(
    /// Watching requests.
    tap,
    "io.linkerd.proxy.tap"
);
package!(
    /// Matchers of TLS routes.
    tls_route,
    "io.linkerd.proxy.tls_route"
);
package!(
    /// What precedes the payload between two proxies.
    transport_header,
    "transport.l5d.io"
);
