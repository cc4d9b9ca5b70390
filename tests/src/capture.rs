//! What a pod's network card carried, as tcpdump saw it.

use crate::pod::Pod;
use crate::process::Process;
use crate::wait;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

/// A capture that is running.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// What one side of a TCP connection sent, in order.
#[derive(Debug, Default)]
pub struct Flow {
    /// Its bytes; what was sent twice is there once.
    pub bytes: Vec<u8>,
    next: Option<u32>,
}

/// Flows by their sender and receiver.
pub type Flows = BTreeMap<(SocketAddrV4, SocketAddrV4), Flow>;

impl Capture {
    /// Captures the TCP segments on a pod's `eth0`.
    pub fn start(pod: &Pod) -> Self {
        let argv = [
            "tcpdump",
            "-i",
            "eth0",
            "-Z",
            "root",
            "--immediate-mode",
            "-U",
            "-s",
            "0",
            "-w",
            "capture.pcap",
            "ip and tcp",
        ];
        let mut tcpdump = pod.start("tcpdump", "root", &argv, &[]);
        tcpdump.until_logged("listening on");
        Self {
            tcpdump,
            file: pod.dir().join("capture.pcap"),
        }
    }

    /// Waits until these bytes have been seen, and with them everything before.
    pub fn until_seen(&self, text: &[u8]) {
        let seen = || {
            let file = fs::read(&self.file).ok()?;
            file.windows(text.len())
                .any(|window| window == text)
                .then_some(())
        };
        wait::until(&format!("{} on the wire", String::from_utf8_lossy(text)), seen);
    }

    /// Ends the capture and puts together what it has seen.
    pub fn stop(self) -> Flows {
        self.tcpdump.stop();
        flows(&fs::read(&self.file).unwrap())
    }
}

impl Flow {
    /// Whether everything here is in TLS records: handshake or application data, one after the other (RFC 8446 §5.1).
    pub fn is_tls(&self) -> bool {
        let mut rest = &*self.bytes;
        while let [kind, 3, 1 | 3, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if !(20..=23).contains(kind) {
                return false;
            }
            // The last record may have been cut by the end of the capture.
            rest = after.get(length..).unwrap_or_default();
        }
        !self.bytes.is_empty() && rest.is_empty()
    }

    /// Whether this begins with a ServerHello that selects TLS 1.3 (RFC 8446 §4.2.1: supported_versions, 0x0304).
    pub fn selects_tls13(&self) -> bool {
        self.server_hello()
            .windows(6)
            .any(|extension| extension == [0, 0x2b, 0, 2, 3, 4])
    }

    /// Whether this begins with a ServerHello whose key share is X25519MLKEM768, 0x11ec: safe from quantum computers.
    pub fn is_post_quantum(&self) -> bool {
        self.server_hello()
            .windows(6)
            .any(|extension| matches!(extension, [0, 0x33, _, _, 0x11, 0xec]))
    }

    fn server_hello(&self) -> &[u8] {
        match &self.bytes[..] {
            [22, 3, 3, high, low, message @ ..] if message.first() == Some(&2) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                message.get(..length).unwrap_or(message)
            }
            _ => &[],
        }
    }

    /// Whether these bytes appear.
    pub fn contains(&self, text: &[u8]) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text)
    }
}

/// Reads a pcap file of Ethernet frames, little-endian as tcpdump writes it here.
fn flows(file: &[u8]) -> Flows {
    let mut flows = Flows::new();
    let mut rest = file.get(24..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((frame, after)) = after.split_at_checked(length) else {
            break;
        };
        add(&mut flows, frame);
        rest = after;
    }
    flows
}

/// Adds a segment where it continues its flow.
fn add(flows: &mut Flows, frame: &[u8]) -> Option<()> {
    let ip = frame.get(14..)?;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let ip = ip.get(..total)?;
    let tcp = ip.get(usize::from(ip.first()? & 15) * 4..)?;
    let number = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let address = |at: usize| {
        ip.get(at..at + 4)?
            .try_into()
            .ok()
            .map(|bytes: [u8; 4]| Ipv4Addr::from(bytes))
    };
    let from = SocketAddrV4::new(address(12)?, number(0)?);
    let to = SocketAddrV4::new(address(16)?, number(2)?);
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let (payload, syn) = (
        tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        tcp.get(13)? & 2 != 0,
    );
    let flow = flows.entry((from, to)).or_default();
    if syn {
        *flow = Flow::default();
        flow.next = Some(sequence.wrapping_add(1));
        return Some(());
    }
    let next = flow.next.get_or_insert(sequence);
    // How much of this segment is known already; a segment that comes too early is not kept: a bridge does not reorder.
    let known = next.wrapping_sub(sequence) as usize;
    if let Some(new) = payload.get(known..) {
        flow.bytes.extend_from_slice(new);
        *next = next.wrapping_add(u32::try_from(new.len()).ok()?);
    }
    Some(())
}
