//! The command line, by Linkerd's flag names; values stay text here, so that `config` can report every error at once.

use clap::{ArgAction, Parser};

/// Redirects a pod's TCP connections to its proxy, over IPv4 and IPv6, with iptables.
///
/// Exit codes: 0 when the rules stand and were checked, 1 when something failed while running, 64 for wrong flags.
/// Lists may be repeated or separated by commas; spaces and empty items are fine.
#[derive(Debug, Default, Parser)]
#[command(name = "outrigger-init", version, args_override_self = true)]
pub struct Flags {
    /// Port of the proxy that receives incoming connections (required)
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub incoming_proxy_port: String,

    /// Port of the proxy that receives outgoing connections (required)
    #[arg(
        short = 'o',
        long,
        value_name = "PORT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub outgoing_proxy_port: String,

    /// User id of the proxy: its own connections go out directly; -1 for none; 0 is refused
    #[arg(
        short = 'u',
        long,
        value_name = "UID",
        default_value = "-1",
        allow_hyphen_values = true
    )]
    pub proxy_uid: String,

    /// Group id of the proxy: its own connections go out directly; -1 for none; 0 is refused
    #[arg(
        short = 'g',
        long,
        value_name = "GID",
        default_value = "-1",
        allow_hyphen_values = true
    )]
    pub proxy_gid: String,

    /// Redirect only connections to these ports; without it all incoming connections are redirected
    #[arg(short = 'r', long, value_name = "PORTS", action = ArgAction::Append)]
    pub ports_to_redirect: Vec<String>,

    /// Incoming connections to these ports or ranges (lo-hi) reach the application directly
    #[arg(long, value_name = "PORTS", action = ArgAction::Append)]
    pub inbound_ports_to_ignore: Vec<String>,

    /// Outgoing connections to these ports or ranges (lo-hi) go out directly
    #[arg(long, value_name = "PORTS", action = ArgAction::Append)]
    pub outbound_ports_to_ignore: Vec<String>,

    /// Incoming connections from these CIDRs reach the application directly; each counts for its own address family
    #[arg(long, value_name = "CIDRS", action = ArgAction::Append)]
    pub subnets_to_ignore: Vec<String>,

    /// Print the input for iptables-restore and ip6tables-restore, and change nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub simulate: String,

    /// Do all of it in the network namespace behind this path, such as /run/netns/web or /proc/42/ns/net
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub netns: String,

    /// Wait for the xtables lock
    #[arg(short = 'w', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub use_wait_flag: String,

    /// How long the kernel remembers a connection in CLOSE_WAIT; 0 leaves that alone; needs a privileged container
    #[arg(long, value_name = "SECONDS", default_value = "0", allow_hyphen_values = true)]
    pub timeout_close_wait_secs: String,

    /// plain or json
    #[arg(long, value_name = "FORMAT", default_value = "plain")]
    pub log_format: String,

    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// nft (the default), legacy or plain; overrides --firewall-bin-path; if its programs are missing, others are used, with a warning
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pub iptables_mode: String,

    /// Selects the mode by a program's name: iptables-nft, iptables-legacy or iptables
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub firewall_bin_path: String,

    /// Accepted and ignored: it follows from the mode
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub firewall_save_bin_path: String,

    /// Redirect IPv6 connections too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub ipv6: String,
}
