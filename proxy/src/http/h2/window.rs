//! Flow-control windows: how much a peer may send before anybody has read it.
//!
//! Requests of many clients share one connection between two proxies. The window of a stream bounds what a reader that
//! has stopped leaves behind. The window of the connection only sums those up: were it smaller than their sum, enough
//! stopped readers would use it up, and the connection would stand still for everybody (RFC 9113 §5.2.1 warns of it).

use crate::config::{FlowControl, Http2Client};

/// The windows of a connection, for what its peer sends; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Of a stream.
    pub stream: u32,
    /// Of the connection.
    pub connection: u32,
}

/// As large as no sum of streams is in practice. A peer that counts in signed numbers has room above.
const BOUNDLESS: u32 = 1 << 30;
/// The smallest that a stream gets, bytes: the largest frame that everybody takes.
const SMALL: u32 = 16 << 10;
/// The largest that the protocol knows (RFC 9113 §6.9.1).
const LARGEST: u32 = (1 << 31) - 1;

impl Windows {
    /// Those that streams alone bound: `streams` of them that nobody reads never use up the connection's.
    pub fn of_streams(stream: u32, streams: u32) -> Self {
        Self {
            stream,
            connection: stream.saturating_mul(streams).clamp(BOUNDLESS, LARGEST),
        }
    }

    /// As they are configured, for connections with at most this many streams.
    pub fn configured(flow_control: FlowControl, streams: u32) -> Self {
        match flow_control {
            FlowControl::Streams(stream) => Self::of_streams(stream, streams),
            FlowControl::Fixed { stream, connection } => Self { stream, connection },
        }
    }

    /// Bytes of a stream's window that it can do without when memory is short: 16 KiB are enough to go on. None where
    /// what `streams` of them keep back could use up the connection's.
    pub fn spare(self, streams: u32) -> usize {
        let bounded = u64::from(self.stream) * u64::from(streams) > u64::from(self.connection);
        let spare = if bounded {
            0
        } else {
            self.stream.saturating_sub(SMALL)
        };
        spare as usize
    }

    /// How many bytes of bookkeeping for small DATA frames that nobody has read yet a connection may cost: half of what
    /// the frames' content may. Beyond, h2 ends it with `ENHANCE_YOUR_CALM`.
    pub fn bookkeeping(self, streams: u32) -> usize {
        let content = u64::from(self.stream) * u64::from(streams);
        let content = content.min(u64::from(self.connection));
        usize::try_from(content / 2).unwrap_or(usize::MAX)
    }
}

impl From<&Http2Client> for Windows {
    fn from(client: &Http2Client) -> Self {
        Self {
            stream: client.stream_window,
            connection: client.connection_window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_nobody_reads_never_use_up_the_connection() {
        for (stream, streams) in [(65_535, 100), (262_144, 1_024), (1 << 20, 2_000)] {
            let windows = Windows::of_streams(stream, streams);
            assert!(windows.connection / stream >= streams, "{windows:?}");
        }
        assert_eq!(Windows::of_streams(LARGEST, u32::MAX).connection, LARGEST);
    }

    #[test]
    fn what_streams_keep_back_never_uses_up_the_connection() {
        let windows = Windows::of_streams(262_144, 1_024);
        assert_eq!(windows.spare(1_024), 245_760);
        assert_eq!(Windows::of_streams(1, 1_024).spare(1_024), 0);
        let (stream, connection) = (65_536, 1 << 20);
        assert_eq!(Windows { stream, connection }.spare(16), 49_152);
        assert_eq!(Windows { stream, connection }.spare(17), 0);
    }

    #[test]
    fn fixed_windows_are_taken_as_they_are() {
        let fixed = FlowControl::Fixed {
            stream: 1,
            connection: 2,
        };
        let windows = Windows {
            stream: 1,
            connection: 2,
        };
        assert_eq!(Windows::configured(fixed, 100), windows);
        assert_eq!(windows.bookkeeping(100), 1);
    }
}
