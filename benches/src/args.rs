//! Command lines of the benches' own programs: a command, then `--name value` pairs.

use std::net::SocketAddr;

use crate::BoxError;

/// A command line.
#[derive(Debug)]
pub struct Args(Vec<String>);

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Bytes.
    Tcp,
}

impl Args {
    /// The command line of this process.
    pub fn from_command_line() -> Result<Self, BoxError> {
        let args: Vec<_> = std::env::args().skip(1).collect();
        match args.len() % 2 {
            1 => Ok(Self(args)),
            _ => Err("expected a command, then pairs of --name value".into()),
        }
    }

    /// The command.
    pub fn command(&self) -> Result<&str, BoxError> {
        self.0
            .first()
            .map(String::as_str)
            .ok_or_else(|| "expected a command".into())
    }

    /// The value of a name.
    pub fn value(&self, name: &str) -> Result<&str, BoxError> {
        let mut pairs = self.0[1..].chunks(2);
        let found = pairs.find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        found.ok_or_else(|| format!("{name} is missing").into())
    }

    /// The value of a name, as an address.
    pub fn address(&self, name: &str) -> Result<SocketAddr, BoxError> {
        Ok(self.value(name)?.parse()?)
    }

    /// The value of a name, as a number.
    pub fn number(&self, name: &str) -> Result<usize, BoxError> {
        Ok(self.value(name)?.parse()?)
    }

    /// The value of a name, as a protocol.
    pub fn protocol(&self, name: &str) -> Result<Protocol, BoxError> {
        match self.value(name)? {
            "h1" => Ok(Protocol::Http1),
            "h2" => Ok(Protocol::Http2),
            "tcp" => Ok(Protocol::Tcp),
            other => Err(format!("{name}: expected h1, h2 or tcp, not {other}").into()),
        }
    }
}
