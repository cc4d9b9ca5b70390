//! Flags become values that need no further check; every wrong flag is reported at once.

use crate::flags::Flags;
use crate::ports::{PortRange, parse_port};
use crate::tools::Mode;
use ipnet::IpNet;
use std::fmt;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// One run of `outrigger-init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which connections go where.
    pub redirection: Redirection,
    /// Whose programs change the tables.
    pub mode: Mode,
    /// The namespace to work in; `None` is that of this process.
    pub netns: Option<PathBuf>,
    /// How long the kernel shall remember a connection in CLOSE_WAIT, in seconds, never 0; `None` leaves it alone.
    pub close_wait: Option<u32>,
    /// Program ip6tables as well.
    pub ipv6: bool,
    /// Print the plan instead of applying it.
    pub simulate: bool,
    /// Pass `--wait` to the restore commands.
    pub wait: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
}

/// Which connections of a pod are redirected to its proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirection {
    /// The proxy's port for incoming connections, never 0.
    pub incoming_port: u16,
    /// The proxy's port for outgoing connections, never 0.
    pub outgoing_port: u16,
    /// Sockets of this user go out directly; never 0.
    pub proxy_uid: Option<u32>,
    /// Sockets of this group go out directly; never 0.
    pub proxy_gid: Option<u32>,
    /// The only incoming ports to redirect; empty means all.
    pub redirected_ports: Vec<u16>,
    /// Incoming ports that bypass the proxy.
    pub inbound_skip: Vec<PortRange>,
    /// Outgoing ports that bypass the proxy.
    pub outbound_skip: Vec<PortRange>,
    /// Clients whose connections bypass the proxy.
    pub skip_subnets: Vec<Subnet>,
}

/// A CIDR, and how it was written (that goes into the rule's comment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network, host bits cleared.
    pub net: IpNet,
    /// As in the flag, trimmed.
    pub text: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text with a full timestamp.
    Plain,
    /// One JSON object per line.
    Json,
}

/// Every flag that is wrong, with its reason; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}error: {error}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the flags' values.
    ///
    /// # Errors
    /// All of them together, each naming its flag and the item that is wrong.
    pub fn parse(flags: &Flags) -> Result<Self, ConfigErrors> {
        let mut errors = Errors::default();
        let config = Self {
            redirection: Redirection {
                incoming_port: errors.proxy_port("--incoming-proxy-port", &flags.incoming_proxy_port),
                outgoing_port: errors.proxy_port("--outgoing-proxy-port", &flags.outgoing_proxy_port),
                proxy_uid: errors.owner("--proxy-uid", &flags.proxy_uid),
                proxy_gid: errors.owner("--proxy-gid", &flags.proxy_gid),
                redirected_ports: errors.list("--ports-to-redirect", &flags.ports_to_redirect, parse_port),
                inbound_skip: errors.list(
                    "--inbound-ports-to-ignore",
                    &flags.inbound_ports_to_ignore,
                    PortRange::parse,
                ),
                outbound_skip: errors.list(
                    "--outbound-ports-to-ignore",
                    &flags.outbound_ports_to_ignore,
                    PortRange::parse,
                ),
                skip_subnets: errors.list("--subnets-to-ignore", &flags.subnets_to_ignore, Subnet::parse),
            },
            mode: errors.mode(&flags.iptables_mode, &flags.firewall_bin_path),
            netns: Some(flags.netns.trim())
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            close_wait: errors.close_wait(&flags.timeout_close_wait_secs),
            ipv6: errors.boolean("--ipv6", &flags.ipv6),
            simulate: errors.boolean("--simulate", &flags.simulate),
            wait: errors.boolean("--use-wait-flag", &flags.use_wait_flag),
            log_format: if flags.log_format == "json" {
                LogFormat::Json
            } else {
                LogFormat::Plain
            },
            log_level: errors.log_level(&flags.log_level),
        };
        if errors.0.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(errors.0))
        }
    }
}

impl Subnet {
    /// Reads `address/prefix`.
    ///
    /// # Errors
    /// A sentence that names the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("{text} is not a valid CIDR address"))?;
        Ok(Self {
            net: net.trunc(),
            text: text.to_owned(),
        })
    }
}

#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    /// A placeholder stands in for a bad value: with an error recorded, no `Config` leaves this file.
    fn or_default<T: Default>(&mut self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| {
            self.0.push(error);
            T::default()
        })
    }

    fn proxy_port(&mut self, flag: &str, text: &str) -> u16 {
        let port = parse_port(text.trim()).map_err(|_| match text.trim() {
            "" | "-1" => format!("{flag} must be a valid TCP port number (1 to 65535); it is required"),
            text => format!("{flag} must be a valid TCP port number (1 to 65535), not {text:?}"),
        });
        self.or_default(port)
    }

    fn owner(&mut self, flag: &str, text: &str) -> Option<u32> {
        let id = match text.trim().parse::<i64>() {
            Ok(-1) => Ok(None),
            Ok(0) => Err(format!(
                "{flag} 0 is refused: it is root's, so whatever runs as root in the pod would bypass the proxy; \
                 run the proxy under an id of its own (Linkerd's is 2102)"
            )),
            // The largest id means "none" to the kernel.
            Ok(id @ 1..0xffff_ffff) => Ok(u32::try_from(id).ok()),
            _ => Err(format!(
                "{flag} must be an id from 1 to 4294967294, or -1 for none, not {text:?}"
            )),
        };
        self.or_default(id)
    }

    fn list<T>(
        &mut self,
        flag: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut list = Vec::new();
        for item in values.iter().flat_map(|value| value.split(',')).map(str::trim) {
            if item.is_empty() {
                continue;
            }
            match parse(item) {
                Ok(item) => list.push(item),
                Err(error) => self.0.push(format!("{flag}: {error}")),
            }
        }
        list
    }

    fn boolean(&mut self, flag: &str, text: &str) -> bool {
        let value = match text.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("{flag} must be true or false, not {text:?}")),
        };
        self.or_default(value)
    }

    /// The names of Go's logrus, which Linkerd's charts use; `tracing` has nothing above error.
    fn log_level(&mut self, text: &str) -> LevelFilter {
        match text.trim().to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => {
                self.0.push(format!(
                    "--log-level must be error, warn, info, debug or trace, not {text:?}"
                ));
                LevelFilter::INFO
            }
        }
    }

    /// The mode wins over the path, as in Linkerd. Without both, Linkerd takes legacy and this program nft: the same rules, in
    /// the backend which kernels and distributions keep.
    fn mode(&mut self, mode: &str, bin_path: &str) -> Mode {
        let mode = match (mode.trim(), bin_path.trim()) {
            ("nft", _) | ("", "iptables-nft") => Ok(Mode::Nft),
            ("legacy", _) | ("", "iptables-legacy") => Ok(Mode::Legacy),
            ("plain", _) | ("", "iptables") => Ok(Mode::Plain),
            ("", "") => Ok(Mode::default()),
            ("", path) => Err(format!(
                "--firewall-bin-path selects a mode by name and knows \"iptables-nft\", \"iptables-legacy\" and \"iptables\", not {path:?}"
            )),
            (mode, _) => Err(format!(
                "--iptables-mode valid values are only \"legacy\", \"nft\" and \"plain\", not {mode:?}"
            )),
        };
        self.or_default(mode)
    }

    fn close_wait(&mut self, text: &str) -> Option<u32> {
        let seconds = text.trim().parse::<u32>().map_err(|_| {
            format!("--timeout-close-wait-secs must be a number of seconds, or 0 for the kernel's own, not {text:?}")
        });
        Some(self.or_default(seconds)).filter(|seconds| *seconds > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_flags_of_linkerds_chart_are_understood() {
        let config = parse(
            "--incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102 \
             --inbound-ports-to-ignore 4190,4191,4567,4568 --outbound-ports-to-ignore 4567,4568 \
             --firewall-bin-path iptables-nft --firewall-save-bin-path iptables-nft-save --ipv6=false",
        )
        .unwrap();
        assert_eq!(
            (config.redirection.incoming_port, config.redirection.outgoing_port),
            (4143, 4140)
        );
        assert_eq!(
            (config.redirection.proxy_uid, config.redirection.proxy_gid),
            (Some(2102), None)
        );
        assert_eq!(config.redirection.inbound_skip.len(), 4);
        assert!(!config.ipv6 && !config.simulate && !config.wait);
    }

    #[test]
    fn short_flags_repetition_and_the_last_of_two_values_work_as_in_pflag() {
        let config =
            parse("-p 4143 -o4140 -u 2102 -g=2103 -r 1 -r 2,3 -w --proxy-uid 7 --simulate --ipv6").unwrap();
        assert_eq!(config.redirection.redirected_ports, [1, 2, 3]);
        assert_eq!(
            (config.redirection.proxy_uid, config.redirection.proxy_gid),
            (Some(7), Some(2103))
        );
        assert!(config.ipv6 && config.simulate && config.wait);
    }

    #[test]
    fn spaces_and_empty_items_in_lists_are_accepted() {
        let flags = Flags {
            ports_to_redirect: vec![" 80 , ,81,".into(), String::new()],
            inbound_ports_to_ignore: vec![" 22 - 23 ,, 25".into()],
            subnets_to_ignore: vec![" 10.1.2.3/8 , fd00::1/8".into()],
            ..valid()
        };
        let redirection = Config::parse(&flags).unwrap().redirection;
        assert_eq!(redirection.redirected_ports, [80, 81]);
        assert_eq!(
            redirection
                .inbound_skip
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["22:23", "25"]
        );
        assert_eq!(redirection.skip_subnets[0].net.to_string(), "10.0.0.0/8");
        assert_eq!(redirection.skip_subnets[1].text, "fd00::1/8");
    }

    #[test]
    fn every_bad_item_is_named_and_all_are_told_at_once() {
        let flags = Flags {
            incoming_proxy_port: "0".into(),
            outgoing_proxy_port: String::new(),
            ports_to_redirect: vec!["1-2,80".into()],
            inbound_ports_to_ignore: vec!["x,9-8,1-2-3,65536,0".into()],
            subnets_to_ignore: vec!["10.0.0.0,fe80::/129".into()],
            ipv6: "maybe".into(),
            log_level: "loud".into(),
            ..valid()
        };
        let errors = Config::parse(&flags).unwrap_err();
        assert_eq!(errors.0.len(), 12, "{errors}");
        let text = errors.to_string();
        for part in [
            "--incoming-proxy-port must be a valid TCP port number",
            "--outgoing-proxy-port must be a valid TCP port number",
            "--ports-to-redirect: \"1-2\"",
            "--inbound-ports-to-ignore: \"x\"",
            "\"9-8\"",
            "\"1-2-3\"",
            "\"65536\"",
            "10.0.0.0 is not a valid CIDR address",
            "fe80::/129 is not a valid CIDR address",
            "--ipv6",
            "\"loud\"",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn root_is_refused_as_the_proxys_owner_with_the_reason() {
        let errors = parse("-p 1 -o 2 -u 0 -g 0").unwrap_err().0;
        assert_eq!(errors.len(), 2);
        assert!(
            errors[0].starts_with("--proxy-uid 0 is refused: it is root's"),
            "{}",
            errors[0]
        );
        assert!(
            errors[1].starts_with("--proxy-gid 0 is refused: it is root's"),
            "{}",
            errors[1]
        );
        assert!(parse("-p 1 -o 2 -u -2").is_err());
        assert!(parse("-p 1 -o 2 -u 4294967295").is_err());
        assert_eq!(parse("-p 1 -o 2 -u -1").unwrap().redirection.proxy_uid, None);
    }

    #[test]
    fn the_mode_wins_over_the_program_and_nft_is_the_default() {
        let mode = |flags: &str| parse(&format!("-p 1 -o 2 {flags}")).map(|config| config.mode);
        assert_eq!(mode(""), Ok(Mode::Nft));
        assert_eq!(mode("--iptables-mode legacy"), Ok(Mode::Legacy));
        assert_eq!(mode("--firewall-bin-path iptables-legacy"), Ok(Mode::Legacy));
        assert_eq!(mode("--firewall-bin-path iptables"), Ok(Mode::Plain));
        assert_eq!(
            mode("--iptables-mode plain --firewall-bin-path iptables-nft"),
            Ok(Mode::Plain)
        );
        let error = mode("--iptables-mode ebpf").unwrap_err().to_string();
        assert!(
            error.contains("--iptables-mode valid values are only \"legacy\", \"nft\" and \"plain\""),
            "{error}"
        );
        let error = mode("--firewall-bin-path /sbin/iptables")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"/sbin/iptables\""), "{error}");
    }

    #[test]
    fn a_close_wait_of_zero_and_an_empty_namespace_are_none() {
        let config = parse("-p 1 -o 2 --timeout-close-wait-secs 0 --netns=").unwrap();
        assert_eq!((config.close_wait, config.netns), (None, None));
        let config = parse("-p 1 -o 2 --timeout-close-wait-secs 3600 --netns /run/netns/a").unwrap();
        assert_eq!(
            (config.close_wait, config.netns),
            (Some(3600), Some("/run/netns/a".into()))
        );
        for bad in ["-1", "1h", "4294967296"] {
            let error = parse(&format!("-p 1 -o 2 --timeout-close-wait-secs {bad}")).unwrap_err();
            assert!(
                error.0[0].starts_with("--timeout-close-wait-secs must be a number of seconds"),
                "{error}"
            );
        }
    }

    fn parse(line: &str) -> Result<Config, ConfigErrors> {
        Config::parse(&Flags::try_parse_from(format!("outrigger-init {line}").split_whitespace()).unwrap())
    }

    fn valid() -> Flags {
        Flags::try_parse_from("outrigger-init -p 4143 -o 4140".split(' ')).unwrap()
    }
}
