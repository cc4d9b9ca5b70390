//! Why streams and connections end (RFC 9113 §5.4, §7).

use std::fmt;
use std::io;
use std::sync::Arc;

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u32);

impl Reason {
    /// Nothing is amiss.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// The sender of the code failed.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// The peer sent more than its window.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// The peer left SETTINGS unanswered.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame came for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame has a size that its type can't have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not processed.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// Nobody wants the stream any more.
    pub const CANCEL: Self = Self(0x8);
    /// A header block could not be decompressed.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The connection of a CONNECT request broke off.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer asks too much.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// What protects the connection is not good enough.
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    /// HTTP/1.1 is to be used instead.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// The name that RFC 9113 §7 gives it.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::CONNECT_ERROR => "CONNECT_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self::INADEQUATE_SECURITY => "INADEQUATE_SECURITY",
            Self::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl From<u32> for Reason {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl From<Reason> for u32 {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which end of the connection ended something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Us,
    Peer,
}

/// Why a stream or a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Kind);

#[derive(Clone, Debug, thiserror::Error)]
enum Kind {
    #[error("{} the stream: {reason}", if *by == By::Peer { "the peer reset" } else { "we reset" })]
    Reset { reason: Reason, by: By },
    #[error("{} the connection: {reason}{text}", if *by == By::Peer { "the peer ended" } else { "we ended" })]
    GoAway { reason: Reason, text: Text, by: By },
    #[error("the connection broke off")]
    Io(#[source] Arc<io::Error>),
    #[error("{0}")]
    Misuse(&'static str),
}

/// What a GOAWAY says beside its code.
#[derive(Clone, Debug)]
struct Text(Arc<str>);

/// Of what a GOAWAY says, no more is kept, bytes.
const TEXT: usize = 128;

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            "" => Ok(()),
            text => write!(f, " ({text})"),
        }
    }
}

impl Error {
    pub(crate) fn reset(reason: Reason, by: By) -> Self {
        Self(Kind::Reset { reason, by })
    }

    pub(crate) fn go_away(reason: Reason, text: &[u8], by: By) -> Self {
        let text = &text[..text.len().min(TEXT)];
        let text = Text(String::from_utf8_lossy(text).escape_debug().to_string().into());
        Self(Kind::GoAway { reason, text, by })
    }

    pub(crate) fn misuse(what: &'static str) -> Self {
        Self(Kind::Misuse(what))
    }

    /// The code that says it; `None` where no frame did.
    pub fn reason(&self) -> Option<Reason> {
        match &self.0 {
            Kind::Reset { reason, .. } | Kind::GoAway { reason, .. } => Some(*reason),
            Kind::Io(_) | Kind::Misuse(_) => None,
        }
    }

    /// Whether one stream was reset (RST_STREAM).
    pub fn is_reset(&self) -> bool {
        matches!(self.0, Kind::Reset { .. })
    }

    /// Whether the connection was ended (GOAWAY). A stream has this error from the peer only if the peer did not process
    /// it (RFC 9113 §6.8).
    pub fn is_go_away(&self) -> bool {
        matches!(self.0, Kind::GoAway { .. })
    }

    /// Whether what carries the connection failed or ended.
    pub fn is_io(&self) -> bool {
        matches!(self.0, Kind::Io(_))
    }

    /// Whether the peer's frame said so.
    pub fn is_remote(&self) -> bool {
        matches!(
            self.0,
            Kind::Reset { by: By::Peer, .. } | Kind::GoAway { by: By::Peer, .. }
        )
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(Kind::Io(Arc::new(error)))
    }
}

/// As if we had reset a stream with it.
impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::reset(reason, By::Us)
    }
}

/// What ends the whole connection, and what the GOAWAY says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fatal(pub(crate) Reason, pub(crate) &'static str);

impl From<Reason> for Fatal {
    fn from(reason: Reason) -> Self {
        Self(reason, "")
    }
}
