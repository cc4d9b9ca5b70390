//! The configuration as a whole: what the charts set is accepted, what is wrong is reported at once, the docs are current.

use outrigger_proxy::config::vars;

#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if update_docs() {
        std::fs::write(path, vars::markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == vars::markdown(),
        "run this test with UPDATE_DOCS=1, and look at what changes"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the test, not configuration of the proxy"
)]
fn update_docs() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}
