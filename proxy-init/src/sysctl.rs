//! The kernel's CLOSE_WAIT timeout in the network namespace of this thread.

use crate::error::Error;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};

/// `/proc/sys/net` shows the namespace of the thread that opens it.
const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

/// Sets how long, in seconds, the kernel remembers a connection in CLOSE_WAIT.
///
/// # Errors
/// The capability or a writable /proc/sys is missing, connection tracking is not loaded, or the value is too large for the kernel.
pub fn set_close_wait(seconds: u32) -> Result<(), Error> {
    write(CLOSE_WAIT, &seconds.to_string()).map_err(|source| Error::CloseWait {
        seconds,
        hint: hint(source.kind()),
        source,
    })?;
    tracing::info!("net.netfilter.nf_conntrack_tcp_timeout_close_wait = {seconds}");
    Ok(())
}

fn write(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            " (it needs root or the capability NET_ADMIN, and a /proc/sys that can be written, which only a container \
             with privileged: true has; or leave the flag out and set it in the pod's securityContext.sysctls)"
        }
        ErrorKind::NotFound => {
            " (the kernel tracks no connections in this namespace: load nf_conntrack on the node)"
        }
        ErrorKind::InvalidInput => " (the kernel refuses this value: it is too large)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        assert!(hint(ErrorKind::ReadOnlyFilesystem).contains("privileged: true"));
        assert!(hint(ErrorKind::PermissionDenied).contains("NET_ADMIN"));
        let missing = write("/proc/sys/net/no-such-value", "1").unwrap_err();
        assert!(hint(missing.kind()).contains("nf_conntrack"), "{missing}");
    }
}
