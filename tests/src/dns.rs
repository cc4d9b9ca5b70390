//! The DNS of a node: the A records of services (RFC 1035), so that pods use names as they do in a cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a pod's `/etc/resolv.conf` says, namespace `demo` being its own.
pub(crate) const RESOLV_CONF: &str = "nameserver 10.77.0.1
search demo.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
";

/// A server that knows some names, and that there are no others.
#[derive(Debug)]
pub(crate) struct Dns {
    names: Names,
}

type Names = Arc<Mutex<BTreeMap<String, Ipv4Addr>>>;

impl Dns {
    /// Answers on this socket for as long as this process runs.
    pub(crate) fn serve(socket: UdpSocket) -> Self {
        let names = Names::default();
        let known = Arc::clone(&names);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length], &known.lock().unwrap()) {
                    // Whoever does not hear it asks again.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { names }
    }

    /// Gives an address a name, without a dot at its end.
    pub(crate) fn name(&self, name: &str, ip: Ipv4Addr) {
        self.names.lock().unwrap().insert(name.to_owned(), ip);
    }
}

/// The answer to a query with one question. There is none to what is no query.
fn answer(query: &[u8], names: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let kind = query.get(end..end + 2)?;
    let question = query.get(12..end + 4)?;
    let known = names.get(&name);
    let address = known.filter(|_| kind == [0, 1]);
    let (found, code) = (u8::from(address.is_some()), if known.is_some() { 0 } else { 3 });
    let recursion_desired = query[2] & 1;
    let mut answer = vec![
        query[0],
        query[1],
        0x84 | recursion_desired,
        0x80 | code,
        0,
        1,
        0,
        found,
        0,
        0,
        0,
        0,
    ];
    answer.extend(question);
    if let Some(ip) = address {
        // The question's name, type A, class IN, five seconds, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(ip.octets());
    }
    Some(answer)
}

/// The name that is asked for, and where it ends.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_has_an_address_and_another_does_not_exist() {
        let names = BTreeMap::from([("web.demo".to_owned(), Ipv4Addr::new(10, 96, 0, 10))]);
        let ask =
            |name: &[u8], kind| [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", name, &[0, 0, kind, 0, 1]].concat();
        let found = answer(&ask(b"\x03WEB\x04demo", 1), &names).unwrap();
        assert_eq!((found[7], found[3] & 15), (1, 0));
        assert!(found.ends_with(&[10, 96, 0, 10]));
        let no_ipv6 = answer(&ask(b"\x03web\x04demo", 28), &names).unwrap();
        assert_eq!((no_ipv6[7], no_ipv6[3] & 15), (0, 0));
        let nobody = answer(&ask(b"\x04else", 1), &names).unwrap();
        assert_eq!((nobody[7], nobody[3] & 15), (0, 3));
        assert_eq!(answer(b"\x12\x34", &names), None);
    }
}
