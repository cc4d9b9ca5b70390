//! What stands in the tables afterwards, and what the program says.

use crate::pod::{alone, init, init_with_path, program, redirect, saved, sh, stand_ins};

/// What Linkerd's proxy-init leaves behind for the same flags (k8s spec §1.4).
pub(crate) const LINKERDS_DUMP: &str = r#":PROXY_INIT_OUTPUT - [0:0]
:PROXY_INIT_REDIRECT - [0:0]
-A PREROUTING -m comment --comment "proxy-init/install-proxy-init-prerouting" -j PROXY_INIT_REDIRECT
-A OUTPUT -m comment --comment "proxy-init/install-proxy-init-output" -j PROXY_INIT_OUTPUT
-A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -m comment --comment "proxy-init/ignore-proxy-user-id" -j RETURN
-A PROXY_INIT_OUTPUT -o lo -m comment --comment "proxy-init/ignore-loopback" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m multiport --dports 4567,4568 -m comment --comment "proxy-init/ignore-port-4567,4568" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m comment --comment "proxy-init/redirect-all-outgoing-to-proxy-port" -j REDIRECT --to-ports 4140
-A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191,4567,4568 -m comment --comment "proxy-init/ignore-port-4190,4191,4567,4568" -j RETURN
-A PROXY_INIT_REDIRECT -s 10.0.0.0/8 -m comment --comment "proxy-init/ignore-subnet-10.0.0.0/8" -j RETURN
-A PROXY_INIT_REDIRECT -p tcp -m comment --comment "proxy-init/redirect-all-incoming-to-proxy-port" -j REDIRECT --to-ports 4143"#;

pub(crate) const LINKERDS_FLAGS: &str = "-p 4143 -o 4140 -u 2102 --inbound-ports-to-ignore 4190,4191,4567,4568 \
                              --outbound-ports-to-ignore 4567,4568 --subnets-to-ignore 10.0.0.0/8";

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn the_tables_are_those_of_linkerd_for_the_same_flags() {
    alone(|| {
        redirect(LINKERDS_FLAGS);
        let expected: Vec<_> = LINKERDS_DUMP.lines().collect();
        assert_eq!(saved("iptables-nft-save"), expected);
        let without_cidr: Vec<_> = expected
            .into_iter()
            .filter(|line| !line.contains(" -s "))
            .collect();
        assert_eq!(saved("ip6tables-nft-save"), without_cidr);
    });
}

#[test]
fn running_twice_changes_nothing() {
    alone(|| {
        redirect(LINKERDS_FLAGS);
        redirect(&format!("{LINKERDS_FLAGS} --use-wait-flag"));
        assert_eq!(
            saved("iptables-nft-save"),
            LINKERDS_DUMP.lines().collect::<Vec<_>>()
        );
    });
}

#[test]
fn running_again_with_other_flags_converges_and_leaves_foreign_rules_alone() {
    alone(|| {
        let foreign = [
            "-A PREROUTING -p udp -j FOREIGN",
            "-A FOREIGN -p udp -m udp --dport 53 -j ACCEPT",
        ];
        sh("iptables-nft -t nat -N FOREIGN");
        for rule in foreign {
            sh(&format!("iptables-nft -t nat {rule}"));
        }
        redirect("-p 1143 -o 1140 -u 7 -g 8 -r 80,81 --outbound-ports-to-ignore 1-2");
        redirect(LINKERDS_FLAGS);
        let (theirs, ours): (Vec<_>, _) = saved("iptables-nft-save")
            .into_iter()
            .partition(|line| line.contains("FOREIGN"));
        assert_eq!(ours, LINKERDS_DUMP.lines().collect::<Vec<_>>());
        assert_eq!(theirs, [":FOREIGN - [0:0]", foreign[0], foreign[1]]);
    });
}

#[test]
fn ipv6_is_left_alone_when_it_is_switched_off() {
    alone(|| {
        redirect("-p 4143 -o 4140 -u 2102 --ipv6=false");
        assert_eq!(saved("ip6tables-nft-save"), [""; 0]);
        assert!(!saved("iptables-nft-save").is_empty());
    });
}

#[test]
fn subnets_of_both_families_go_to_their_own_in_any_notation() {
    alone(|| {
        redirect(
            "-p 4143 -o 4140 -u 2102 --subnets-to-ignore \
             10.1.2.3/8,192.0.2.7/32,0.0.0.0/0,fd00:0:0::1/8,::1.2.3.4/128,::ffff:1.2.3.4/128,::/0",
        );
        let subnets = |save| {
            saved(save)
                .into_iter()
                .filter(|line| line.contains("ignore-subnet"))
                .count()
        };
        assert_eq!(
            (subnets("iptables-nft-save"), subnets("ip6tables-nft-save")),
            (3, 4)
        );
    });
}

#[test]
fn many_ports_and_ranges_become_rules_the_kernel_takes() {
    alone(|| {
        let ports: Vec<_> = (1..60)
            .map(|i| {
                if i % 3 == 0 {
                    format!("{i}00-{i}09")
                } else {
                    format!("{i}")
                }
            })
            .collect();
        let list = ports.join(",");
        redirect(&format!(
            "-p 4143 -o 4140 -u 2102 --inbound-ports-to-ignore {list},9 --outbound-ports-to-ignore {list},7-7,1-65535"
        ));
        let shown = saved("iptables-nft-save").join("\n");
        for port in ports {
            assert!(shown.matches(&port.replace('-', ":")).count() > 1, "{port}");
        }
    });
}

#[test]
fn simulation_runs_nothing_and_prints_what_restore_takes() {
    alone(|| {
        let simulated = program()
            .args("-p 4143 -o 4140 -u 2102 --simulate".split(' '))
            .env("PATH", "")
            .output()
            .unwrap();
        assert!(simulated.status.success());
        let text = String::from_utf8(simulated.stdout).unwrap();
        assert_eq!(text.matches("*nat\n").count(), 2, "{text}");
        assert_eq!(saved("iptables-nft-save"), [""; 0]);

        let bin = env!("CARGO_BIN_EXE_outrigger-init");
        sh(&format!(
            "{bin} {LINKERDS_FLAGS} --ipv6=false --simulate | iptables-nft-restore --noflush"
        ));
        assert_eq!(
            saved("iptables-nft-save"),
            LINKERDS_DUMP.lines().collect::<Vec<_>>()
        );
    });
}

#[test]
fn wrong_flags_exit_64_and_change_nothing() {
    alone(|| {
        for flags in [
            "-p 4143",
            "-p 4143 -o 4140 -u 0",
            "-p 1 -o 2 --iptables-mode ebpf",
            "--no-such-flag",
        ] {
            assert_eq!(init(flags).status.code(), Some(64), "{flags}");
        }
        assert_eq!(saved("iptables-nft-save"), [""; 0]);
    });
}

#[test]
fn a_table_that_iptables_cannot_show_is_refused_before_any_change() {
    alone(|| {
        sh(
            "nft 'add table ip nat; add chain ip nat PREROUTING { type nat hook prerouting priority dstnat; }; \
            add rule ip nat PREROUTING ct state new accept'",
        );
        let before = sh("nft list ruleset");
        let output = init("-p 4143 -o 4140 -u 2102");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("rules made by another program"), "{said}");
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn a_rule_that_was_accepted_and_is_not_there_is_an_error_that_names_it() {
    alone(|| {
        let tools = stand_ins(
            "liars",
            ["iptables-nft-save", "iptables-nft-restore"].map(|tool| (tool, "/bin/true")),
        );
        let (code, said) = init_with_path(
            &format!("{tools}:{PATH}"),
            "-p 4143 -o 4140 -u 2102 --ipv6=false --log-level error",
        );
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("missing: -A PROXY_INIT_OUTPUT -m owner --uid-owner 2102"),
            "{said}"
        );
    });
}

#[test]
fn a_node_without_ip6tables_stops_only_a_pod_that_has_ipv6() {
    for (broken, dir) in [
        ("ip6tables-nft-save", "no-save"),
        ("ip6tables-nft-restore", "no-restore"),
    ] {
        alone(move || {
            let tools = stand_ins(dir, [(broken, "/bin/false")]);
            let (code, said) = init_with_path(&format!("{tools}:{PATH}"), "-p 4143 -o 4140 -u 2102");
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains(broken) && said.contains("pass --ipv6=false"),
                "{said}"
            );

            sh("ip link set lo down");
            let (code, said) = init_with_path(&format!("{tools}:{PATH}"), "-p 4143 -o 4140 -u 2102");
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("no interface has an IPv6 address"), "{said}");
            assert!(!saved("iptables-nft-save").is_empty());
        });
    }
}
