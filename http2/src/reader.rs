//! What makes frames of bytes (RFC 9113 §3.4, §4).

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Fatal, Reason};
use crate::frame::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD, HEADERS, Head, PADDED, PREFACE,
};
use crate::frame::{PING, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::hpack::Decoder;
use crate::message::Incoming;
use crate::receive::{Block, depends_on};
use crate::settings::Ours;
use crate::state::{Role, State};

/// What is read at a time, bytes.
pub(crate) const READ: usize = 16 << 10;
/// Payloads up to this many bytes are copied: else they would keep all that was read with them, and the next read would
/// need a buffer of its own.
const COPIED: usize = 2048;
/// CONTINUATIONs of one header block (CVE-2024-27316). Each may be as long as a frame may be.
const CONTINUATIONS: usize = 32;

/// Bytes that have come, and what makes frames of them.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) bytes: BytesMut,
    frames: Frames,
}

#[derive(Debug)]
struct Frames {
    decoder: Decoder,
    /// Of the preface, what is still to come.
    preface: &'static [u8],
    /// Whether a frame has come.
    begun: bool,
    /// A header block of which more is to come.
    partial: Option<Partial>,
    /// DATA of which more is to come.
    content: Option<Content>,
    /// Bytes of padding that are to come.
    padding: usize,
    /// How many fields the last block had: the next has as many, about.
    fields: usize,
    max_frame: usize,
    max_header_list: usize,
}

#[derive(Debug)]
struct Partial {
    block: Block,
    bytes: BytesMut,
    continuations: usize,
}

/// What lies between the padding of DATA, as far as it has not come.
#[derive(Debug)]
struct Content {
    stream: u32,
    left: usize,
    /// Bytes of the frame that are no content, and that the windows have not counted.
    beside: usize,
    ends_stream: bool,
}

impl Reader {
    pub(crate) fn new(role: Role, ours: &Ours) -> Self {
        let frames = Frames {
            decoder: Decoder::new(4096),
            preface: if role == Role::Server { PREFACE } else { &[] },
            begun: false,
            partial: None,
            content: None,
            padding: 0,
            fields: 0,
            max_frame: ours.max_frame as usize,
            max_header_list: ours.max_header_list as usize,
        };
        Self {
            bytes: BytesMut::new(),
            frames,
        }
    }

    /// Whether a frame has come: the peer has said what it allows.
    pub(crate) fn has_begun(&self) -> bool {
        self.frames.begun
    }

    /// Whether all of a client's preface has come.
    pub(crate) fn has_preface(&self) -> bool {
        self.frames.preface.is_empty()
    }

    /// Whether no frame has come in part.
    pub(crate) fn is_between(&self) -> bool {
        let frames = &self.frames;
        self.bytes.is_empty() && frames.content.is_none() && frames.padding == 0 && frames.partial.is_none()
    }

    /// Takes in all frames that have come whole, and what has come of DATA.
    pub(crate) fn frames(&mut self, state: &mut State) -> Result<(), Fatal> {
        let (bytes, frames) = (&mut self.bytes, &mut self.frames);
        frames.preface(bytes)?;
        while frames.preface.is_empty() && frames.content(bytes, state)? {
            let Some(head) = Head::parse(bytes) else {
                break;
            };
            if head.length > frames.max_frame {
                return Err(Reason::FRAME_SIZE_ERROR.into());
            }
            frames.expected(head)?;
            if head.kind == DATA {
                if !frames.data(head, bytes)? {
                    break;
                }
                continue;
            }
            let length = HEAD + head.length;
            let Some(payload) = bytes.get(HEAD..length) else {
                bytes.reserve(length - bytes.len());
                break;
            };
            frames.frame(head, payload, state)?;
            bytes.advance(length);
        }
        Ok(())
    }
}

impl Frames {
    /// Takes off what has come of the preface (RFC 9113 §3.4).
    fn preface(&mut self, bytes: &mut BytesMut) -> Result<(), Fatal> {
        let count = self.preface.len().min(bytes.len());
        let (expected, rest) = self.preface.split_at(count);
        if bytes[..count] != *expected {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        bytes.advance(count);
        self.preface = rest;
        Ok(())
    }

    /// DATA begins, if its head has come with what is said of its padding (RFC 9113 §6.1).
    fn data(&mut self, head: Head, bytes: &mut BytesMut) -> Result<bool, Fatal> {
        let mut beside = 0;
        if head.has(PADDED) {
            let padding = match bytes.get(HEAD) {
                _ if head.length == 0 => return Err(Reason::PROTOCOL_ERROR.into()),
                Some(padding) => usize::from(*padding),
                None => return Ok(false),
            };
            if padding >= head.length {
                return Err(Reason::PROTOCOL_ERROR.into());
            }
            (self.padding, beside) = (padding, 1 + padding);
            bytes.advance(1);
        }
        bytes.advance(HEAD);
        self.content = Some(Content {
            stream: head.stream,
            left: head.length - beside,
            beside,
            ends_stream: head.has(END_STREAM),
        });
        Ok(true)
    }

    /// Passes on what has come of DATA: it does not wait for the whole frame, which would then lie in two reads and be
    /// copied. Whether the frame is done with, if there was one.
    fn content(&mut self, bytes: &mut BytesMut, state: &mut State) -> Result<bool, Fatal> {
        if let Some(content) = &mut self.content {
            let count = content.left.min(bytes.len());
            if count < content.left && count == 0 {
                return Ok(false);
            }
            // One that is cut off and short would keep a whole read in memory, and so would the next of its frame.
            let piece = if count > COPIED && (count == content.left || count >= READ / 2) {
                bytes.split_to(count).freeze()
            } else {
                let piece = Bytes::copy_from_slice(&bytes[..count]);
                bytes.advance(count);
                piece
            };
            content.left -= count;
            let length = count + mem::take(&mut content.beside);
            let (stream, whole) = (content.stream, content.left == 0);
            let ends = whole && content.ends_stream;
            if whole {
                self.content = None;
            }
            state.on_data(stream, piece, length, ends)?;
        }
        let skipped = self.padding.min(bytes.len());
        if self.content.is_none() {
            bytes.advance(skipped);
            self.padding -= skipped;
        }
        Ok(self.content.is_none() && self.padding == 0)
    }

    /// Whether such a frame may come now: SETTINGS first (RFC 9113 §3.4), and nothing within a header block (§6.10).
    fn expected(&mut self, head: Head) -> Result<(), Fatal> {
        let settings = head.kind == SETTINGS && !head.has(frame::ACK);
        let in_place = match &self.partial {
            Some(partial) => head.kind == CONTINUATION && head.stream == partial.block.stream,
            None => head.kind != CONTINUATION && (self.begun || settings),
        };
        if !in_place {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let on_stream = match head.kind {
            DATA | HEADERS | RST_STREAM | CONTINUATION | PRIORITY => Some(true),
            SETTINGS | PING | GOAWAY => Some(false),
            _ => None,
        };
        if on_stream.is_some_and(|on_stream| on_stream != (head.stream != 0)) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let id = head.stream;
        match head.kind {
            HEADERS => self.headers(head, payload, state),
            CONTINUATION => self.continuation(head, payload, state),
            RST_STREAM => state.on_reset(id, payload),
            SETTINGS => {
                state.on_settings(head.flags, payload)?;
                self.begun = true;
                Ok(())
            }
            PING => state.on_ping(head.flags, payload),
            GOAWAY => state.on_go_away(payload),
            WINDOW_UPDATE => state.on_window_update(id, payload),
            PRIORITY => state.on_priority(id, payload),
            // We allow none, and a client may send none at all (RFC 9113 §8.4).
            PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR.into()),
            // Extensions mean nothing to us (RFC 9113 §5.5).
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let mut fragment = frame::unpadded(head, payload)?;
        let mut priority = None;
        if head.has(PRIORITIZED) {
            let (first, rest) = fragment
                .split_at_checked(5)
                .ok_or(Fatal(Reason::FRAME_SIZE_ERROR, ""))?;
            (priority, fragment) = (depends_on(first), rest);
        }
        let block = Block {
            stream: head.stream,
            ends_stream: head.has(END_STREAM),
            depends_on: priority,
        };
        if head.has(END_HEADERS) {
            return self.block(&block, fragment, state);
        }
        self.partial = Some(Partial {
            block,
            bytes: BytesMut::from(fragment),
            continuations: 0,
        });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let Some(partial) = &mut self.partial else {
            return Ok(());
        };
        partial.continuations += 1;
        if partial.continuations > CONTINUATIONS {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, "too_many_continuations"));
        }
        // Compressed, it takes no more room than what we allow does otherwise.
        if partial.bytes.len() + payload.len() > self.max_header_list + READ {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, TOO_LARGE));
        }
        partial.bytes.extend_from_slice(payload);
        if !head.has(END_HEADERS) {
            return Ok(());
        }
        match self.partial.take() {
            Some(partial) => self.block(&partial.block, &partial.bytes, state),
            None => Ok(()),
        }
    }

    /// A header block that has come whole. It is decoded whatever becomes of it: what follows builds on it (RFC 9113 §4.3).
    fn block(&mut self, block: &Block, bytes: &[u8], state: &mut State) -> Result<(), Fatal> {
        let mut fields = Incoming::new(self.max_header_list, self.fields);
        let decoded = self.decoder.decode(bytes, |field, size| fields.take(field, size));
        decoded.map_err(|_| Fatal::from(Reason::COMPRESSION_ERROR))?;
        if fields.beyond() > BOMB * self.max_header_list {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, TOO_LARGE));
        }
        self.fields = fields.len().min(MANY);
        state.on_headers(block, fields)
    }
}

/// So many times more than what is allowed is no list of fields that somebody means.
const BOMB: usize = 3;
const TOO_LARGE: &str = "header_list_way_too_large";
/// Room is made for no more fields than these before they have come.
const MANY: usize = 24;
