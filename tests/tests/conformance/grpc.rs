//! gRPC's interop cases: grpc-go's client, and grpcio's, against grpc-go's server.

use crate::pair;
use outrigger_e2e::app;
use outrigger_e2e::pod::{APPS, Pod, TOOLS};
use outrigger_e2e::process::Process;
use std::net::{Ipv4Addr, SocketAddr};

/// Those of `grpc-interop-client` that need no cloud, and that its own server of this version passes.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];
const PORT: u16 = 10_000;

#[test]
fn grpc_go_passes_its_interop_cases_as_it_does_without_proxies() {
    let (mesh, server, client) = pair(&[PORT]);
    let interop = mesh.service("interop", PORT, &[(&server, PORT)]);
    let _server = serve(&server);
    for case in CASES {
        for (way, pod, addr) in [
            ("without proxies", &*server, local()),
            ("through the pair", &client, interop),
        ] {
            let argv = [
                &*format!("{TOOLS}/grpc-interop-client"),
                "-server_host",
                &addr.ip().to_string(),
                "-server_port",
                &addr.port().to_string(),
                "-test_case",
                case,
            ];
            let output = pod.output("nobody", &argv);
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{case} {way}: {printed}");
        }
    }
}

#[test]
fn grpcio_gets_the_same_answers_from_grpc_go_as_without_proxies() {
    let (mesh, server, client) = pair(&[PORT]);
    let interop = mesh.service("interop", PORT, &[(&server, PORT)]);
    let _server = serve(&server);
    let without = call(&server, local());
    assert_eq!(without.lines().count(), 12, "{without}");
    assert!(!without.contains("no error"), "{without}");
    assert_eq!(call(&client, interop), without);
}

/// Loopback is not redirected: here no proxy takes part.
fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

fn serve(pod: &Pod) -> Process {
    let program = format!("{TOOLS}/grpc-interop-server");
    let mut server = pod.start("interop", "nobody", &[&program, "-port", &PORT.to_string()], &[]);
    server.until("it listens", || app::listens(pod, PORT));
    server
}

/// What grpcio's cases print, one on each line.
fn call(pod: &Pod, addr: SocketAddr) -> String {
    let program = format!("{APPS}/interop.py");
    let output = pod.output("nobody", &["/usr/bin/python3", &program, &addr.to_string()]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    printed
}
