//! Another namespace by its path, and the CLOSE_WAIT timeout that belongs to it.

use crate::pod::{alone, at, init, redirect, saved, sh};
use crate::tables::{LINKERDS_DUMP, LINKERDS_FLAGS};
use outrigger_sys::netns;
use std::path::PathBuf;

const CLOSE_WAIT: &str = "cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

#[test]
fn all_work_is_done_in_the_namespace_of_the_path_and_none_outside() {
    alone(|| {
        let pod = Pod::named("path");
        let path = pod.0.display();
        let before = sh(CLOSE_WAIT);
        redirect(&format!(
            "{LINKERDS_FLAGS} --netns {path} --timeout-close-wait-secs 4242"
        ));
        at(&pod.0, || {
            assert_eq!(
                saved("iptables-nft-save"),
                LINKERDS_DUMP.lines().collect::<Vec<_>>()
            );
            assert_eq!(sh(CLOSE_WAIT), "4242\n");
        });
        assert_eq!(saved("iptables-nft-save"), [""; 0]);
        assert_eq!(sh(CLOSE_WAIT), before);
    });
}

#[test]
fn without_a_path_the_timeout_is_set_here_and_a_simulation_does_not_set_it() {
    alone(|| {
        let before = sh(CLOSE_WAIT);
        redirect("-p 4143 -o 4140 -u 2102 --timeout-close-wait-secs 777 --simulate");
        redirect("-p 4143 -o 4140 -u 2102 --netns /nowhere --simulate");
        assert_eq!(sh(CLOSE_WAIT), before);
        redirect("-p 4143 -o 4140 -u 2102 --timeout-close-wait-secs 777");
        assert_eq!(sh(CLOSE_WAIT), "777\n");
    });
}

#[test]
fn a_path_that_is_no_namespace_is_refused_before_any_change() {
    alone(|| {
        for (path, reason) in [
            ("/run/netns/no-such-name", "No such file"),
            ("/dev/null", "is not a network namespace"),
            ("/proc/self/ns/uts", "is not a network namespace"),
        ] {
            let output = init(&format!("-p 4143 -o 4140 -u 2102 --netns {path}"));
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains(&format!("cannot enter the network namespace --netns {path}")),
                "{said}"
            );
            assert!(said.contains(reason), "{said}");
        }
        assert_eq!(saved("iptables-nft-save"), [""; 0]);
    });
}

#[test]
fn a_timeout_the_kernel_refuses_is_an_error_that_says_so() {
    alone(|| {
        let output = init("-p 4143 -o 4140 -u 2102 --timeout-close-wait-secs 4294967295");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the kernel refuses this value"), "{said}");
    });
}

#[test]
fn without_the_privileges_the_timeouts_error_names_them() {
    alone(|| {
        // In a mount namespace of its own, as a container without privileges sees it: /proc/sys is read-only.
        let said = sh(&format!(
            "unshare -m sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && \
             {} -p 4143 -o 4140 -u 2102 --timeout-close-wait-secs 60; test $? = 1'",
            env!("CARGO_BIN_EXE_outrigger-init")
        ));
        assert!(said.contains("privileged: true"), "{said}");
    });
}

/// A namespace with a name, for as long as the test runs.
struct Pod(PathBuf);

impl Pod {
    fn named(name: &str) -> Self {
        let name = format!("init-{}-{name}", std::process::id());
        Self(netns::create(&name).expect("these tests run as root"))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let name = self.0.file_name().and_then(|name| name.to_str());
        // A name that is gone already is no reason to panic while a failed test unwinds.
        let _ = name.map(netns::delete);
    }
}
