//! The programs that show and change the tables, by address family and by the mode asked for.

use std::fmt;

/// IPv4 or IPv6: each has tables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// iptables
    V4,
    /// ip6tables
    V6,
}

impl Family {
    /// The families to program.
    pub fn of(ipv6: bool) -> &'static [Self] {
        if ipv6 { &[Self::V4, Self::V6] } else { &[Self::V4] }
    }
}

/// What `--iptables-mode` says: whose programs to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// `iptables-nft`, the default here (Linkerd's is legacy): every kernel of the last years has it.
    #[default]
    Nft,
    /// `iptables-legacy`
    Legacy,
    /// `iptables`, whichever of the two that is.
    Plain,
}

/// Where the kernel keeps the rules. Both can be there at once, and both then see the same packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables
    Nft,
    /// x_tables
    Legacy,
}

/// The programs for one family's tables in one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tools {
    /// Shows the table.
    pub save: &'static str,
    /// Changes the table, in one transaction.
    pub restore: &'static str,
}

impl Tools {
    /// The names that go with a mode.
    pub fn of(mode: Mode, family: Family) -> Self {
        let (save, restore) = match (mode, family) {
            (Mode::Nft, Family::V4) => ("iptables-nft-save", "iptables-nft-restore"),
            (Mode::Nft, Family::V6) => ("ip6tables-nft-save", "ip6tables-nft-restore"),
            (Mode::Legacy, Family::V4) => ("iptables-legacy-save", "iptables-legacy-restore"),
            (Mode::Legacy, Family::V6) => ("ip6tables-legacy-save", "ip6tables-legacy-restore"),
            (Mode::Plain, Family::V4) => ("iptables-save", "iptables-restore"),
            (Mode::Plain, Family::V6) => ("ip6tables-save", "ip6tables-restore"),
        };
        Self { save, restore }
    }
}

impl Backend {
    /// The one that is not asked to hold our rules.
    pub fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }

    /// The mode that names it.
    pub fn mode(self) -> Mode {
        match self {
            Self::Nft => Mode::Nft,
            Self::Legacy => Mode::Legacy,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Plain => "plain",
        })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.save, self.restore)
    }
}
