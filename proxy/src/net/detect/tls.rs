//! TLS by its first bytes: a ClientHello, and the server name in it.

use std::borrow::Cow;

use outrigger_policy::name::DnsName;

/// What the first bytes of a connection say about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Something else, or a ClientHello that no server would accept.
    NotTls,
    /// The bytes can still become a ClientHello.
    NeedMore,
    /// A ClientHello.
    Tls {
        /// The server name it asks for, in lower case; `None` when it has none, or one that is no DNS name.
        sni: Option<DnsName>,
    },
}

/// The most bytes that are looked at; a caller's buffer has to hold as many.
///
/// One that is larger is not TLS to us: it goes on as bytes, and whom it was meant for decides. With a post-quantum
/// key share a ClientHello has about 1,700 bytes.
pub const LIMIT: usize = 16 << 10;

/// Classifies the first bytes of a connection.
///
/// A ClientHello may come in several records (RFC 8446 §5.1) and any number of reads. The answer is given at the
/// first byte that rules it out, or as soon as the server name has been read: what follows is left to the handshake.
pub fn client_hello(bytes: &[u8]) -> Hello {
    let seen = &bytes[..bytes.len().min(LIMIT)];
    match handshake(seen).and_then(|(message, lack)| server_name(&message, lack)) {
        Ok(sni) => Hello::Tls { sni },
        Err(Stop::Short) if seen.len() < LIMIT => Hello::NeedMore,
        Err(Stop::Short | Stop::Malformed) => Hello::NotTls,
    }
}

/// Why there is no more to read.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Short,
    Malformed,
}

/// The handshake message out of its records, as far as it is there, and why there is no more of it.
fn handshake(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Stop), Stop> {
    let (first, mut rest) = record(bytes)?;
    let mut message = Cow::Borrowed(first);
    while message.len() < message_length(&message)? {
        match record(rest) {
            Ok((fragment, after)) => {
                message.to_mut().extend_from_slice(fragment);
                rest = after;
            }
            // It does not matter when what is there says enough.
            Err(stop) => return Ok((message, stop)),
        }
    }
    Ok((message, Stop::Short))
}

/// The content of the first record, as far as it is there, and what follows (RFC 8446 §5.1).
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8]), Stop> {
    const HANDSHAKE: u8 = 22;
    const MAX_CONTENT: usize = 1 << 14;
    // The minor version says nothing: it is 1 or 3, and to be ignored.
    let possible = [|b: u8| b == HANDSHAKE, |b: u8| b == 3, |b: u8| b <= 4];
    if bytes
        .iter()
        .zip(possible)
        .any(|(byte, possible)| !possible(*byte))
    {
        return Err(Stop::Malformed);
    }
    let [_, _, _, high, low, rest @ ..] = bytes else {
        return Err(Stop::Short);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > MAX_CONTENT {
        return Err(Stop::Malformed);
    }
    Ok(rest.split_at(length.min(rest.len())))
}

/// The length of the handshake message with its header of 4 bytes, or of that header until it is there.
fn message_length(message: &[u8]) -> Result<usize, Stop> {
    const CLIENT_HELLO: u8 = 1;
    match *message {
        [] | [CLIENT_HELLO] | [CLIENT_HELLO, 0] | [CLIENT_HELLO, 0, _] => Ok(4),
        [CLIENT_HELLO, 0, high, low, ..] => {
            let length = 4 + usize::from(u16::from_be_bytes([high, low]));
            // With the header of one record it has to fit into the bytes that are looked at.
            if length > LIMIT - 5 {
                Err(Stop::Malformed)
            } else {
                Ok(length)
            }
        }
        _ => Err(Stop::Malformed),
    }
}

/// The server name of a ClientHello of which there is no more for the reason `lack`.
fn server_name(message: &[u8], lack: Stop) -> Result<Option<DnsName>, Stop> {
    let hello = Reader {
        left: message_length(message)?,
        rest: message,
    };
    find_server_name(hello).map_err(|stop| match stop {
        Stop::Short => lack,
        Stop::Malformed => Stop::Malformed,
    })
}

/// Goes through a ClientHello to its server name (RFC 8446 §4.1.2, RFC 6066 §3).
fn find_server_name(mut hello: Reader<'_>) -> Result<Option<DnsName>, Stop> {
    const SERVER_NAME: usize = 0;
    hello.take(4)?;
    if hello.take(1)? != [3] {
        return Err(Stop::Malformed);
    }
    hello.take(1 + 32)?;
    hello.vector(1, 0..=32)?.skip()?;
    hello.vector(2, 2..=0xfffe)?.skip()?;
    hello.vector(1, 1..=0xff)?.skip()?;
    if hello.left == 0 {
        return Ok(None);
    }
    let mut extensions = hello.vector(2, 0..=0xffff)?;
    while extensions.left > 0 {
        let kind = extensions.number(2)?;
        let data = extensions.vector(2, 0..=0xffff)?;
        if kind == SERVER_NAME {
            return host_name(data);
        }
        data.skip()?;
    }
    Ok(None)
}

/// The first name of kind `host_name` in a server_name extension.
fn host_name(mut extension: Reader<'_>) -> Result<Option<DnsName>, Stop> {
    const HOST_NAME: usize = 0;
    let mut list = extension.vector(2, 1..=0xffff)?;
    while list.left > 0 {
        let kind = list.number(1)?;
        let mut name = list.vector(2, 1..=0xffff)?;
        let name = name.take(name.left)?;
        if kind == HOST_NAME {
            let text = std::str::from_utf8(name).ok();
            return Ok(text.and_then(|text| DnsName::parse(text).ok()));
        }
    }
    Ok(None)
}

/// Reads a structure of a known length of which a part may not have arrived.
struct Reader<'a> {
    /// What has arrived of it and was not read.
    rest: &'a [u8],
    /// Its length without what was read.
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        if n > self.left {
            return Err(Stop::Malformed);
        }
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Stop::Short)?;
        self.rest = rest;
        self.left -= n;
        Ok(taken)
    }

    fn number(&mut self, size: usize) -> Result<usize, Stop> {
        let bytes = self.take(size)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A vector with a length of `size` bytes in front, which has to be in range.
    fn vector(&mut self, size: usize, range: std::ops::RangeInclusive<usize>) -> Result<Self, Stop> {
        let length = self.number(size)?;
        if !range.contains(&length) || length > self.left {
            return Err(Stop::Malformed);
        }
        let (inside, after) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = after;
        self.left -= length;
        Ok(Self {
            rest: inside,
            left: length,
        })
    }

    fn skip(mut self) -> Result<(), Stop> {
        self.take(self.left).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello's handshake message with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = (body.len() as u32 | 1 << 24).to_be_bytes().to_vec();
        message.extend(body);
        message
    }

    fn sni(name: &str) -> Vec<u8> {
        let n = name.len() as u16;
        let lengths = [n + 5, n + 3].map(u16::to_be_bytes).concat();
        [&[0, 0], &lengths[..], &[0], &n.to_be_bytes(), name.as_bytes()].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn tls(name: &str) -> Hello {
        Hello::Tls {
            sni: Some(DnsName::parse(name).unwrap()),
        }
    }

    /// A real hello: rustls, with a post-quantum key share.
    fn rustls_hello(name: &str) -> Vec<u8> {
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_server_name_of_a_real_hello_is_read_in_lower_case() {
        let bytes = rustls_hello("Web.Example.COM");
        assert!(
            bytes.len() > 1200,
            "no post-quantum key share in {} bytes",
            bytes.len()
        );
        assert_eq!(client_hello(&bytes), tls("web.example.com"));
        assert_eq!(client_hello(&rustls_hello("10.0.0.1")), Hello::Tls { sni: None });
    }

    #[test]
    fn a_hello_may_come_in_pieces_and_in_many_records() {
        for size in [1, 2, 3, 4, 5, 17, 60, 1000] {
            let bytes = records(&hello(&sni("a.b")), size);
            for n in 0..bytes.len() {
                assert_eq!(client_hello(&bytes[..n]), Hello::NeedMore, "{size} {n}");
            }
            assert_eq!(client_hello(&bytes), tls("a.b"));
        }
    }

    #[test]
    fn the_name_settles_it_whatever_follows() {
        let bytes = records(
            &hello(&[&[0, 10, 0, 1, 9][..], &sni("a.b"), &[0xff; 90]].concat()),
            4096,
        );
        assert_eq!(client_hello(&bytes[..bytes.len() - 90]), tls("a.b"));
        assert_eq!(client_hello(&bytes), tls("a.b"));
    }

    #[test]
    fn a_broken_record_matters_only_before_the_name() {
        let whole = records(&hello(&[&sni("a.b")[..], &[0, 10, 0, 1, 9]].concat()), 60);
        let (first, second) = whole.split_at(65);
        let broken = [first, &[23], &second[1..]].concat();
        assert_eq!(client_hello(first), tls("a.b"));
        assert_eq!(client_hello(&broken), tls("a.b"));
        let early = records(&hello(&sni("a.b")), 30);
        assert_eq!(client_hello(&[&early[..35], &[23]].concat()), Hello::NotTls);
    }

    #[test]
    fn a_hello_without_a_usable_name_is_still_tls() {
        for extensions in [
            &[][..],
            &[0, 10, 0, 1, 9],
            &sni("10.0.0.1"),
            &sni("a b"),
            &sni("\0"),
        ] {
            assert_eq!(
                client_hello(&records(&hello(extensions), 4096)),
                Hello::Tls { sni: None }
            );
        }
        let mut short = hello(&[]);
        short.truncate(short.len() - 2);
        short[3] -= 2;
        assert_eq!(client_hello(&records(&short, 4096)), Hello::Tls { sni: None });
    }

    #[test]
    fn what_is_not_tls_is_settled_at_the_first_impossible_byte() {
        for bytes in [
            &b"G"[..],
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x02\x00\x02",
            b"\x16\x03\x01\x02\x00\x01\x01",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x02",
        ] {
            let before = client_hello(&bytes[..bytes.len() - 1]);
            let settled = client_hello(bytes);
            assert_eq!(settled, Hello::NotTls, "{}", bytes.escape_ascii());
            assert!(
                before == Hello::NeedMore || bytes[0] == 0,
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_not_tls() {
        let good = records(&hello(&sni("a.b")), 4096);
        for at in good.len() - 14..good.len() - 3 {
            let mut bad = good.clone();
            bad[at] = 0xff;
            assert_ne!(client_hello(&bad), tls("a.b"), "byte {at}");
            assert_ne!(client_hello(&bad), Hello::NeedMore, "byte {at}");
        }
    }

    #[test]
    fn an_endless_hello_is_not_tls_at_the_limit() {
        let extension = [&[9, 9, 0x0f, 0x9c][..], &[0; 3996]].concat();
        let bytes = records(&hello(&extension), 1);
        assert_eq!(client_hello(&bytes[..LIMIT - 1]), Hello::NeedMore);
        assert_eq!(client_hello(&bytes[..LIMIT]), Hello::NotTls);
        assert_eq!(client_hello(&bytes), Hello::NotTls);
    }
}
