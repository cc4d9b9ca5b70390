//! The redirection as data: which rules of table `nat` it takes, in order, written as `iptables-save` writes them.

use crate::config::Redirection;
use crate::ports::{PortRange, batches};
use crate::tools::Family;
use ipnet::IpNet;
use std::fmt;

/// A chain of table `nat`. The names are Linkerd's: its tools and ours then find, and replace, each other's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// The kernel's, for packets that come in.
    Prerouting,
    /// The kernel's, for packets of local processes.
    Output,
    /// Ours, for connections that come in.
    ProxyInitRedirect,
    /// Ours, for connections that go out.
    ProxyInitOutput,
}

impl Chain {
    /// The chains that belong to this program alone.
    pub const OURS: [Self; 2] = [Self::ProxyInitRedirect, Self::ProxyInitOutput];

    /// As iptables writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
            Self::ProxyInitRedirect => "PROXY_INIT_REDIRECT",
            Self::ProxyInitOutput => "PROXY_INIT_OUTPUT",
        }
    }
}

/// Which packets a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Any packet of any protocol.
    Any,
    /// Sent by a socket of this user.
    Uid(u32),
    /// Sent by a socket of this group.
    Gid(u32),
    /// Leaves through `lo`.
    Loopback,
    /// Comes from this network, by any protocol.
    Source(IpNet),
    /// Any TCP.
    Tcp,
    /// TCP to one port.
    TcpPort(u16),
    /// TCP to one of these ports, at most fifteen slots.
    TcpPorts(Vec<PortRange>),
}

/// What becomes of such a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Leaves the chain: the connection goes where it was meant to go.
    Return,
    /// Goes on in another chain.
    Jump(Chain),
    /// Goes to this port of the pod.
    Redirect(u16),
}

/// One rule; prints as the `-A` line which `iptables-save` shows for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain that holds it.
    pub chain: Chain,
    /// Which packets.
    pub matches: Match,
    /// After `proxy-init/`.
    pub comment: String,
    /// What becomes of them.
    pub target: Target,
}

/// All rules for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The family they are for.
    pub family: Family,
    /// The whole contents of our own chains, in order.
    pub rules: Vec<Rule>,
    /// The jumps from the kernel's chains into ours: present once, wherever they stand.
    pub jumps: Vec<Rule>,
}

/// The rules that a redirection takes in one family.
pub fn plan(redirection: &Redirection, family: Family) -> Plan {
    let mut rules = inbound(redirection, family);
    rules.extend(outbound(redirection));
    Plan {
        family,
        rules,
        jumps: vec![
            rule(
                Chain::Prerouting,
                Match::Any,
                "install-proxy-init-prerouting",
                Target::Jump(Chain::ProxyInitRedirect),
            ),
            rule(
                Chain::Output,
                Match::Any,
                "install-proxy-init-output",
                Target::Jump(Chain::ProxyInitOutput),
            ),
        ],
    }
}

fn inbound(redirection: &Redirection, family: Family) -> Vec<Rule> {
    let chain = Chain::ProxyInitRedirect;
    let to_proxy = Target::Redirect(redirection.incoming_port);
    let mut rules = skipped_ports(chain, &redirection.inbound_skip);
    for subnet in redirection
        .skip_subnets
        .iter()
        .filter(|subnet| is_of(&subnet.net, family))
    {
        let comment = format!("ignore-subnet-{}", subnet.text);
        rules.push(rule(chain, Match::Source(subnet.net), comment, Target::Return));
    }
    for port in &redirection.redirected_ports {
        rules.push(rule(
            chain,
            Match::TcpPort(*port),
            format!("redirect-port-{port}-to-proxy-port"),
            to_proxy,
        ));
    }
    if redirection.redirected_ports.is_empty() {
        rules.push(rule(
            chain,
            Match::Tcp,
            "redirect-all-incoming-to-proxy-port",
            to_proxy,
        ));
    }
    rules
}

fn is_of(net: &IpNet, family: Family) -> bool {
    matches!(
        (family, net),
        (Family::V4, IpNet::V4(_)) | (Family::V6, IpNet::V6(_))
    )
}

fn outbound(redirection: &Redirection) -> Vec<Rule> {
    let chain = Chain::ProxyInitOutput;
    let mut rules = Vec::new();
    if let Some(uid) = redirection.proxy_uid {
        rules.push(rule(
            chain,
            Match::Uid(uid),
            "ignore-proxy-user-id",
            Target::Return,
        ));
    }
    if let Some(gid) = redirection.proxy_gid {
        rules.push(rule(
            chain,
            Match::Gid(gid),
            "ignore-proxy-group-id",
            Target::Return,
        ));
    }
    rules.push(rule(chain, Match::Loopback, "ignore-loopback", Target::Return));
    rules.extend(skipped_ports(chain, &redirection.outbound_skip));
    let to_proxy = Target::Redirect(redirection.outgoing_port);
    rules.push(rule(
        chain,
        Match::Tcp,
        "redirect-all-outgoing-to-proxy-port",
        to_proxy,
    ));
    rules
}

fn skipped_ports(chain: Chain, ports: &[PortRange]) -> Vec<Rule> {
    let skip = |batch: &[PortRange]| {
        let comment = format!("ignore-port-{}", comma_separated(batch));
        rule(chain, Match::TcpPorts(batch.to_vec()), comment, Target::Return)
    };
    batches(ports).into_iter().map(skip).collect()
}

fn rule(chain: Chain, matches: Match, comment: impl Into<String>, target: Target) -> Rule {
    Rule {
        chain,
        matches,
        comment: comment.into(),
        target,
    }
}

impl Plan {
    /// The input for `iptables-restore --noflush` that makes the plan true: naming a chain of ours creates or empties it,
    /// within the same transaction that fills it. `missing` are the jumps that are not there yet.
    pub fn restore_input(&self, missing: &[Rule]) -> String {
        let chains = Chain::OURS
            .map(|chain| format!(":{} - [0:0]\n", chain.name()))
            .concat();
        let rules: String = self
            .rules
            .iter()
            .chain(missing)
            .map(|rule| format!("{rule}\n"))
            .collect();
        format!("*nat\n{chains}{rules}COMMIT\n")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            chain,
            matches,
            comment,
            target,
        } = self;
        write!(
            f,
            "-A {}{matches} -m comment --comment \"proxy-init/{comment}\" -j {target}",
            chain.name()
        )
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Uid(uid) => write!(f, " -m owner --uid-owner {uid}"),
            Self::Gid(gid) => write!(f, " -m owner --gid-owner {gid}"),
            Self::Loopback => f.write_str(" -o lo"),
            Self::Source(net) => write!(f, " -s {net}"),
            Self::Tcp => f.write_str(" -p tcp"),
            Self::TcpPort(port) => write!(f, " -p tcp -m tcp --dport {port}"),
            Self::TcpPorts(ports) => write!(f, " -p tcp -m multiport --dports {}", comma_separated(ports)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("RETURN"),
            Self::Jump(chain) => f.write_str(chain.name()),
            Self::Redirect(port) => write!(f, "REDIRECT --to-ports {port}"),
        }
    }
}

fn comma_separated(ports: &[PortRange]) -> String {
    ports
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Subnet;

    #[test]
    fn listed_ports_replace_the_redirection_of_all() {
        let redirection = Redirection {
            incoming_port: 4143,
            redirected_ports: vec![80, 81],
            ..Default::default()
        };
        let comments: Vec<_> = inbound(&redirection, Family::V4)
            .into_iter()
            .map(|rule| rule.comment)
            .collect();
        assert_eq!(
            comments,
            ["redirect-port-80-to-proxy-port", "redirect-port-81-to-proxy-port"]
        );
    }

    #[test]
    fn a_subnet_goes_to_its_own_family_only() {
        let skip_subnets = ["10.0.0.0/8", "fd00::/8"]
            .map(|text| Subnet::parse(text).unwrap())
            .to_vec();
        let redirection = Redirection {
            skip_subnets,
            ..Default::default()
        };
        let subnet_of = |family| inbound(&redirection, family)[0].to_string();
        assert!(subnet_of(Family::V4).contains("-s 10.0.0.0/8"));
        assert!(subnet_of(Family::V6).contains("-s fd00::/8"));
        assert_eq!(inbound(&redirection, Family::V6).len(), 2);
    }
}
