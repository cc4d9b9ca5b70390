//! Who may call what: the policies of `examples/access`, each written, enforced and taken away while the mesh runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hyper::Version;
use outrigger_e2e::http::{self, Echo, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::steady::Steady;
use outrigger_e2e::{app, wait};

/// Marks what it lets through, and sends `/old` elsewhere.
const FILTERS: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: demo}
spec: {podSelector: {}, port: 8080, proxyProtocol: HTTP/1, accessPolicy: all-unauthenticated}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filters, namespace: demo}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]
    - matches: [{path: {type: PathPrefix, value: /}}]
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-entered, value: here}]}}]
";

fn web() -> (Mesh, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080, 3306]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    (mesh, server, client, web)
}

fn example(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/access");
    fs::read_to_string(dir.join(name)).unwrap()
}

fn remove(mesh: &Mesh, file: &str) {
    mesh.reread(|| fs::remove_file(mesh.manifest(file)).unwrap());
}

fn get(pod: &outrigger_e2e::pod::Pod, addr: SocketAddr, path: &str) -> Response {
    http::get(pod, addr, "web", path, &["connection: close"])
}

/// What the server's proxy shows of its latest refusals.
fn refusals(server: &Meshed) -> String {
    let admin = (Ipv4Addr::LOCALHOST, 4191).into();
    let page = get(server, admin, "/refusals");
    assert_eq!(page.header("content-type"), "application/json");
    page.body
}

/// Waits until the client's proxy has logged this as the reason that a peer gave.
fn until_told(client: &Meshed, why: &str) {
    wait::until(why, || {
        let log = client.proxy().log();
        let told = log
            .lines()
            .any(|line| line.contains("Remote proxy error") && line.contains(why));
        told.then_some(())
    });
}

#[test]
fn a_port_that_is_closed_by_default_lets_nobody_in_until_it_is_open_again() {
    let (mesh, server, client, web) = web();
    mesh.write("access.yaml", &example("deny-by-default.yaml"));
    until_status(&client, web, "web", 403);
    until_told(&client, "unauthorized request on route");
    let why = "nothing admits anybody: write an AuthorizationPolicy for server.web";
    assert!(refusals(&server).contains(why), "{}", refusals(&server));
    let labels = [("srv_name", "web"), ("client_id", client.identity())];
    assert!(Metrics::of(&server).sum("inbound_http_authz_deny_total", &labels) >= 1.0);
    let outside = get(mesh.node().outside(), server.addr(4191), "/refusals");
    assert_eq!(outside.status, 403);
    remove(&mesh, "access.yaml");
    until_status(&client, web, "web", 200);
}

#[test]
fn one_account_may_call_and_nobody_else() {
    let (mesh, server, client, web) = web();
    let other = mesh.pod("other").meshed();
    until_status(&other, web, "web", 200);
    mesh.write("access.yaml", &example("one-account.yaml"));
    until_status(&other, web, "web", 403);
    assert_eq!(get(&client, web, "/").status, 200);
    let unmeshed = get(mesh.node().outside(), server.addr(8080), "/");
    assert_eq!((unmeshed.status, unmeshed.header("l5d-proxy-error")), (403, ""));
    mesh.write(
        "access.yaml",
        &example("one-account.yaml").replace("name: client\n---", "name: other\n---"),
    );
    until_status(&client, web, "web", 403);
    until_status(&other, web, "web", 200);
}

#[test]
fn a_route_is_for_its_operators_and_no_spelling_of_its_path_leads_there() {
    let (mesh, server, client, web) = web();
    let operator = mesh.pod("operator").meshed();
    mesh.write("access.yaml", &example("per-route.yaml"));
    wait::until("the route to be closed", || {
        (get(&client, web, "/admin").status == 403).then_some(())
    });
    assert_eq!(get(&client, web, "/").status, 200);
    assert_eq!(get(&operator, web, "/admin/users").status, 200);
    for path in [
        "/x/../admin",
        "//admin",
        "/%2e%2e/admin",
        "/x%2f..%2fadmin",
        "/./admin",
        "/..;/admin",
    ] {
        let refused = get(&client, web, path);
        assert_eq!(refused.status, 400, "{path}");
    }
    until_told(&client, "the path can be read in two ways: a dot segment");
    let shown = refusals(&server);
    assert!(
        shown.contains("ambiguous_path") && shown.contains("INBOUND_STRICT_PATHS"),
        "{shown}"
    );
    let why = format!("if it named the identity {}", client.identity());
    assert!(shown.contains(&why), "{shown}");
    assert_eq!(get(&client, web, "/a%20b/.well-known").status, 200);
}

#[test]
fn where_a_client_may_take_every_route_paths_are_its_own_affair() {
    let (mesh, _server, client, web) = web();
    mesh.write("access.yaml", FILTERS);
    wait::until("the route to be there", || {
        get(&client, web, "/").body.contains("x-entered").then_some(())
    });
    assert!(get(&client, web, "/a//b%2fc").body.contains("/a//b%2fc"));
}

#[test]
fn a_network_may_connect_without_the_mesh_until_its_connections_are_cut() {
    let (mesh, server, _client, _web) = web();
    let colleague = mesh.pod("colleague").ip(Ipv4Addr::new(10, 77, 1, 12)).unmeshed();
    let guest = mesh.pod("guest").ip(Ipv4Addr::new(10, 77, 1, 13)).unmeshed();
    app::pipe(&server, 3306, "");
    mesh.write("access.yaml", &example("by-network.yaml"));
    wait::until("the guest to be refused", || {
        connects(&guest, server.addr(3306)).is_none().then_some(())
    });
    let mut held = connects(&colleague, server.addr(3306)).unwrap();
    let cut = [("srv_name", "mariadb"), ("target_port", "3306")];
    let terminated = || Metrics::of(&server).sum("inbound_tcp_authz_terminate_total", &cut);
    // The guest's last connection may have been open still when the first policy came.
    let before = terminated();
    mesh.write(
        "access.yaml",
        &example("by-network.yaml")
            .replace("10.77.1.0/24", "192.0.2.0/24")
            .replace("10.77.1.13", "192.0.2.1"),
    );
    assert_eq!(held.read(&mut [0; 8]).unwrap_or(0), 0, "it has been cut");
    assert_eq!(terminated(), before + 1.0);
}

/// A connection over which a byte has come back.
fn connects(pod: &outrigger_e2e::pod::Pod, addr: SocketAddr) -> Option<std::net::TcpStream> {
    let mut stream = pod.connect(addr).ok()?;
    stream.write_all(b"x").ok()?;
    stream.read_exact(&mut [0]).ok()?;
    Some(stream)
}

#[test]
fn an_audited_port_lets_everybody_in_and_logs_whom_no_authorization_names() {
    let (mesh, server, client, web) = web();
    mesh.write("access.yaml", &example("audit.yaml"));
    wait::until("the audit", || {
        let outside = get(mesh.node().outside(), server.addr(8080), "/");
        assert_eq!(outside.status, 200);
        server
            .proxy()
            .log()
            .contains("the policy only audits")
            .then_some(())
    });
    let named = [("authz_name", "client"), ("client_id", client.identity())];
    assert_eq!(get(&client, web, "/").status, 200);
    assert!(Metrics::of(&server).sum("inbound_http_authz_allow_total", &named) >= 1.0);
}

#[test]
fn a_rate_limit_refuses_what_is_too_much_until_it_is_gone() {
    let (mesh, server, client, web) = web();
    let few = example("rate-limit.yaml").replace("requestsPerSecond: 50", "requestsPerSecond: 1");
    mesh.write("access.yaml", &few);
    let mut stream = client.connect(web).unwrap();
    let mut refused = 0.0;
    wait::until("three requests to be too many", || {
        let response = http::exchange(&mut stream, "web", "/", &[]).unwrap();
        refused += f64::from(u8::from(response.status == 429));
        (refused >= 3.0).then_some(())
    });
    until_told(&client, "too many requests: override rate limit exceeded: 1rps");
    assert!(
        refusals(&server).contains("or raise the limit that"),
        "{}",
        refusals(&server)
    );
    let labels = [
        ("ratelimit_scope", "identity"),
        ("ratelimit_kind", "httplocalratelimitpolicy"),
        ("ratelimit_name", "web"),
        ("client_id", client.identity()),
    ];
    assert_eq!(
        Metrics::of(&server).sum("inbound_http_local_ratelimit_total", &labels),
        refused
    );
    remove(&mesh, "access.yaml");
    wait::until("nothing to be refused", || {
        let all = (0..10).all(|_| http::exchange(&mut stream, "web", "/", &[]).unwrap().status == 200);
        all.then_some(())
    });
}

#[test]
fn filters_of_a_servers_route_edit_headers_and_redirect() {
    let (mesh, _server, client, web) = web();
    mesh.write("access.yaml", FILTERS);
    wait::until("the header to be set", || {
        get(&client, web, "/")
            .body
            .contains("x-entered: here")
            .then_some(())
    });
    let moved = get(&client, web, "/old/a?b=c");
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, "http://web/new/a?b=c")
    );
    until_told(&client, "redirected");
}

#[test]
fn policies_change_under_load_and_whom_all_of_them_admit_never_notices() {
    let (mesh, server, client, web) = web();
    let other = mesh.pod("other").meshed();
    let db = mesh.service("db", 3306, &[(&server, 3306)]);
    app::pipe(&server, 3306, "");
    let load = Steady::start(&client, web, Version::HTTP_11, 30);
    let others = |path| get(&other, web, path).status;
    let until = |path, status| {
        wait::until(&format!("{status} for {path}"), || {
            (others(path) == status).then_some(())
        });
    };
    mesh.write("access.yaml", &example("one-account.yaml"));
    until("/", 403);
    mesh.write("access.yaml", &example("audit.yaml"));
    until("/", 200);
    mesh.write("access.yaml", &example("per-route.yaml"));
    until("/admin", 403);
    assert_eq!(others("/"), 200);
    mesh.write("access.yaml", &example("rate-limit.yaml"));
    // Its identity has ten a second, the client's fifty.
    until("/", 429);
    let for_db = example("one-account.yaml").replace("port: http", "port: mysql");
    mesh.write("access.yaml", &for_db);
    wait::until("the other account to be refused", || {
        connects(&other, db).is_none().then_some(())
    });
    let mut held = connects(&client, db).unwrap();
    mesh.write(
        "access.yaml",
        &for_db.replace("name: client\n---", "name: other\n---"),
    );
    assert_eq!(held.read(&mut [0; 8]).unwrap_or(0), 0, "it has been cut");
    let cut = [
        ("srv_name", "web"),
        ("target_port", "3306"),
        ("client_id", client.identity()),
    ];
    let terminated = Metrics::of(&server).sum("inbound_tcp_authz_terminate_total", &cut);
    assert_eq!(terminated, 1.0);
    assert!(connects(&other, db).is_some());
    assert_eq!(load.stop().failures, [] as [String; 0]);
}
