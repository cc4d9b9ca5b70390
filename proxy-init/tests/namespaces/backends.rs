//! The same rules in each backend, one backend at a time, and what runs when the tools asked for are missing.
//! The lock of the legacy tools is the machine's, not the namespace's: beside other tests, every legacy run waits for it.

use crate::pod::{alone, init, init_with_path, redirect, saved, sh, stand_ins};
use crate::tables::{LINKERDS_DUMP, LINKERDS_FLAGS};

#[test]
fn each_mode_leaves_linkerds_tables_in_its_own_backend_however_often_it_runs() {
    for (mode, tables, others) in [
        ("--iptables-mode nft", "nft", "legacy"),
        ("--iptables-mode legacy", "legacy", "nft"),
        ("--firewall-bin-path iptables-legacy", "legacy", "nft"),
        ("--iptables-mode plain", plain(), other(plain())),
    ] {
        alone(move || {
            for _ in 0..2 {
                redirect(&format!("{LINKERDS_FLAGS} {mode} --use-wait-flag"));
                assert_tables_are_linkerds(tables, others);
            }
        });
    }
}

#[test]
fn a_run_in_the_other_backend_takes_our_rules_there_away_and_leaves_foreign_ones() {
    for (before, after) in [("nft", "legacy"), ("legacy", "nft")] {
        alone(move || {
            let foreign = "-A OUTPUT -p udp -m udp --dport 53 -j ACCEPT";
            sh(&format!("iptables-{before} -w -t nat {foreign}"));
            redirect(&format!("-p 1143 -o 1140 -u 7 -w --iptables-mode {before}"));
            let output = init(&format!("{LINKERDS_FLAGS} -w --iptables-mode {after}"));
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(
                said.contains("rules of an earlier run are in the other backend"),
                "{said}"
            );
            assert_eq!(saved(&format!("iptables-{before}-save")), [foreign]);
            sh(&format!("iptables-{before} -w -t nat -F OUTPUT"));
            assert_tables_are_linkerds(after, before);
        });
    }
}

#[test]
fn without_the_tools_asked_for_others_do_the_work_and_a_warning_names_both() {
    alone(|| {
        let tools = stand_ins(
            "only-plain",
            [
                ("iptables-save", "/usr/sbin/iptables-legacy-save"),
                ("iptables-restore", "/usr/sbin/iptables-legacy-restore"),
                ("ip6tables-save", "/usr/sbin/ip6tables-legacy-save"),
                ("ip6tables-restore", "/usr/sbin/ip6tables-legacy-restore"),
                ("iptables-nft-save", "/usr/sbin/iptables-nft-save"),
            ],
        );
        let (code, said) = init_with_path(&tools, &format!("{LINKERDS_FLAGS} -w --iptables-mode nft"));
        assert_eq!(code, Some(0), "{said}");
        let warning = "iptables-nft-save and iptables-nft-restore (mode nft) are not both on PATH: \
                       using iptables-save and iptables-restore (mode plain), which keep the rules in the legacy backend";
        assert!(said.contains(warning), "{said}");
        assert_tables_are_linkerds("legacy", "nft");
    });
}

#[test]
fn without_any_tools_the_error_says_what_to_install() {
    alone(|| {
        let (code, said) = init_with_path("/nowhere", "-p 4143 -o 4140 -u 2102");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("install iptables 1.8 or newer"), "{said}");
    });
}

#[test]
fn rules_in_the_other_backend_that_stay_there_are_an_error() {
    alone(|| {
        redirect("-p 1143 -o 1140 -u 7 -w --iptables-mode legacy --ipv6=false");
        let tools = stand_ins("keepers", [("iptables-legacy-restore", "/bin/true")]);
        let (code, said) = init_with_path(
            &format!("{tools}:/usr/sbin:/usr/bin"),
            "-p 4143 -o 4140 -u 2102 --ipv6=false",
        );
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("still in the other backend (iptables-legacy-save)"),
            "{said}"
        );
    });
}

#[test]
fn a_legacy_table_that_cannot_be_shown_is_a_warning() {
    alone(|| {
        sh("iptables-legacy-save -t nat");
        let tools = stand_ins("blind", [("iptables-legacy-save", "/bin/false")]);
        let (code, said) = init_with_path(
            &format!("{tools}:/usr/sbin:/usr/bin"),
            "-p 4143 -o 4140 -u 2102 --ipv6=false",
        );
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("WARN there is a legacy table nat that cannot be shown"),
            "{said}"
        );
    });
}

/// Both families, and nothing of ours in the other backend.
fn assert_tables_are_linkerds(backend: &str, other: &str) {
    let expected: Vec<_> = LINKERDS_DUMP.lines().collect();
    assert_eq!(saved(&format!("iptables-{backend}-save")), expected);
    let without_cidr = expected.into_iter().filter(|line| !line.contains(" -s "));
    assert_eq!(
        saved(&format!("ip6tables-{backend}-save")),
        without_cidr.collect::<Vec<_>>()
    );
    for save in ["iptables", "ip6tables"] {
        assert_eq!(saved(&format!("{save}-{other}-save")), [""; 0]);
    }
}

/// What `iptables` is on this machine.
fn plain() -> &'static str {
    let version = alone(|| sh("iptables --version"));
    if version.contains("nf_tables") {
        "nft"
    } else {
        "legacy"
    }
}

fn other(backend: &str) -> &'static str {
    if backend == "nft" { "legacy" } else { "nft" }
}
