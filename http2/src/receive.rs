//! What the peer's frames mean (RFC 9113 §5, §6, §8).

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::error::{By, Error, Fatal, Reason};
use crate::frame::{self, ACK, INITIAL_WINDOW, MAX_STREAM, MAX_WINDOW};
use crate::message::{self, Fault, Incoming};
use crate::state::{ALIVE, Ending, GOODBYE, Role, State};
use crate::stream::Stream;

/// Heads of one answer that wait to be read: no window bounds those with an interim status.
const HEADS: usize = 300;

/// A header block that has come whole.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) stream: u32,
    pub(crate) ends_stream: bool,
    /// The stream that its priority names as the one it depends on.
    pub(crate) depends_on: Option<u32>,
}

impl State {
    /// HEADERS (RFC 9113 §6.2), with all CONTINUATIONs.
    pub(crate) fn on_headers(&mut self, block: &Block, fields: Incoming) -> Result<(), Fatal> {
        let id = block.stream;
        if self.streams.contains_key(&id) {
            return self.on_later_headers(block, fields);
        }
        if self.role == Role::Client {
            // What is left of a stream that we have given up. It opens none: pushes are switched off.
            return if self.was_opened(id) {
                Ok(())
            } else {
                Err(Reason::PROTOCOL_ERROR.into())
            };
        }
        if id.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        if id <= self.highest {
            return if self.was_reset(id) {
                Ok(())
            } else {
                Err(Reason::STREAM_CLOSED.into())
            };
        }
        self.highest = id;
        if matches!(self.ending, Ending::After(last) if id > last) {
            // The client had not read our goodbye: it may ask elsewhere.
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let limit = self.limits.ours.max_streams.unwrap_or(0);
        if self.open >= limit as usize {
            return self.made_to_reset(id, Reason::REFUSED_STREAM);
        }
        if block.depends_on == Some(id) {
            return self.made_to_reset(id, Reason::PROTOCOL_ERROR);
        }
        self.on_request(block, fields)
    }

    /// A request's head.
    fn on_request(&mut self, block: &Block, fields: Incoming) -> Result<(), Fatal> {
        let id = block.stream;
        let left = fields.content_length();
        let request = match fields.request() {
            Ok(request) => request,
            Err(Fault::Malformed) => return self.made_to_reset(id, Reason::PROTOCOL_ERROR),
            Err(Fault::TooLarge) => {
                self.answer_too_large(block);
                return Ok(());
            }
        };
        if block.ends_stream && left.is_some_and(|left| left > 0) {
            return self.made_to_reset(id, Reason::PROTOCOL_ERROR);
        }
        let mut stream = Stream::new(self.peer.initial_window, self.recv_initial);
        stream.remote_open = !block.ends_stream;
        stream.recv_held = !block.ends_stream;
        stream.left = left;
        self.streams.insert(id, stream);
        self.open += 1;
        self.arrived.push_back((id, request));
        Ok(())
    }

    /// Answers a request whose fields are too large (RFC 9113 §10.5.1), and looks at nothing more of it.
    fn answer_too_large(&mut self, block: &Block) {
        let id = block.stream;
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.put_block(id, true, |encoder, out| {
            message::put_response(&answer, encoder, out)
        });
        if !block.ends_stream {
            self.refuse(id, Reason::NO_ERROR);
        }
    }

    /// An answer's head, or trailers.
    fn on_later_headers(&mut self, block: &Block, fields: Incoming) -> Result<(), Fatal> {
        let id = block.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.failed.is_some() {
            return Ok(());
        }
        if !stream.remote_open {
            return self.made_to_reset(id, Reason::STREAM_CLOSED);
        }
        if block.depends_on == Some(id) {
            return self.made_to_reset(id, Reason::PROTOCOL_ERROR);
        }
        let taken = if stream.expects_head {
            on_answer(stream, block.ends_stream, fields)
        } else {
            on_trailers(stream, block.ends_stream, fields)
        };
        match taken {
            Ok(()) => {
                stream.wake_reader();
                if block.ends_stream {
                    self.ended(id)?;
                }
                Ok(())
            }
            // Ours is the side that can't take it.
            Err(Fault::TooLarge) => self.made_to_reset(id, Reason::ENHANCE_YOUR_CALM),
            Err(Fault::Malformed) => self.made_to_reset(id, Reason::PROTOCOL_ERROR),
        }
    }

    /// The peer has sent the last of a stream.
    fn ended(&mut self, id: u32) -> Result<(), Fatal> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.left.is_some_and(|left| left > 0) {
            return self.made_to_reset(id, Reason::PROTOCOL_ERROR);
        }
        stream.remote_open = false;
        stream.wake_reader();
        self.settle(id);
        Ok(())
    }

    /// A piece of DATA (RFC 9113 §6.1), which counts for `length` bytes of the windows: its padding may come with it.
    pub(crate) fn on_data(
        &mut self,
        id: u32,
        content: Bytes,
        length: usize,
        ends: bool,
    ) -> Result<(), Fatal> {
        self.recv_window -= length as i64;
        if self.recv_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR.into());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(length);
            return self.on_stray_data(id);
        };
        if stream.failed.is_some() {
            // Whether somebody still holds it is nothing to the peer.
            self.give_back(length);
            return self.on_stray_data(id);
        }
        let wrong = if !stream.remote_open {
            Some(Reason::STREAM_CLOSED)
        } else if stream.expects_head {
            Some(Reason::PROTOCOL_ERROR)
        } else if stream.recv_window < length as i64 {
            Some(Reason::FLOW_CONTROL_ERROR)
        } else if !stream.takes(content.len()) {
            Some(Reason::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(reason) = wrong {
            self.give_back(length);
            return self.made_to_reset(id, reason);
        }
        stream.recv_window -= length as i64;
        let kept = if stream.recv_held { content.len() } else { 0 };
        stream.outstanding += kept;
        if stream.recv_held && (kept > 0 || ends) {
            stream.pieces.push(content);
            stream.wake_reader();
        }
        if length > kept {
            // Padding, or what nobody will read.
            self.give_back(length - kept);
            self.give_back_on(id, length - kept);
        }
        if ends {
            self.ended(id)?;
        }
        Ok(())
    }

    fn on_stray_data(&mut self, id: u32) -> Result<(), Fatal> {
        if !self.was_opened(id) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        if self.role == Role::Client || self.was_reset(id) {
            return Ok(());
        }
        self.made_to_reset(id, Reason::STREAM_CLOSED)
    }

    /// RST_STREAM (RFC 9113 §6.4).
    pub(crate) fn on_reset(&mut self, id: u32, payload: &[u8]) -> Result<(), Fatal> {
        let code = four(payload)?;
        if !self.was_opened(id) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.is_closed() {
            return Ok(());
        }
        stream.fail(Error::reset(Reason::from(code), By::Peer));
        if let Some(at) = self.arrived.iter().position(|(arrived, _)| *arrived == id) {
            // CVE-2023-44487: nobody has looked at it, and nobody will.
            self.arrived.remove(at);
            self.forget(id);
            self.early_resets += 1;
            if self.early_resets > self.limits.early_resets {
                return Err(Fatal(Reason::ENHANCE_YOUR_CALM, "too_many_resets"));
            }
        }
        self.settle(id);
        Ok(())
    }

    /// Nobody holds a stream.
    fn forget(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        (stream.recv_held, stream.send_held) = (false, false);
        let outstanding = std::mem::take(&mut stream.outstanding);
        self.give_back(outstanding);
    }

    /// SETTINGS (RFC 9113 §6.5).
    pub(crate) fn on_settings(&mut self, flags: u8, payload: &[u8]) -> Result<(), Fatal> {
        if flags & ACK != 0 {
            if !payload.is_empty() {
                return Err(Reason::FRAME_SIZE_ERROR.into());
            }
            self.on_settings_known();
            return Ok(());
        }
        let before = self.peer.initial_window;
        self.peer.update(payload, self.role == Role::Server)?;
        self.encoder.resize(self.peer.header_table);
        let more = self.peer.initial_window - before;
        if more != 0 {
            for stream in self.streams.values_mut() {
                stream.send_window += more;
                if stream.send_window > MAX_WINDOW {
                    return Err(Reason::FLOW_CONTROL_ERROR.into());
                }
                if more > 0 {
                    stream.wake_writer();
                }
            }
        }
        self.put(|out| frame::put_head(out, 0, frame::SETTINGS, ACK, 0));
        Ok(())
    }

    /// The peer has read our SETTINGS: what they say of windows holds.
    fn on_settings_known(&mut self) {
        if self.knows_ours {
            return;
        }
        self.knows_ours = true;
        self.recv_initial = i64::from(self.limits.ours.initial_window);
        for stream in self.streams.values_mut() {
            stream.recv_window += self.recv_initial - INITIAL_WINDOW;
        }
    }

    /// PING (RFC 9113 §6.7).
    pub(crate) fn on_ping(&mut self, flags: u8, payload: &[u8]) -> Result<(), Fatal> {
        let payload: [u8; 8] = payload
            .try_into()
            .map_err(|_| Fatal::from(Reason::FRAME_SIZE_ERROR))?;
        if flags & ACK == 0 {
            self.put(|out| frame::put_ping(out, ACK, payload));
        } else if payload == GOODBYE {
            self.goodbye_is_known();
        } else if payload == ALIVE && self.ping.sent {
            self.ping.sent = false;
            if let Some(waker) = self.ping.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }

    /// GOAWAY (RFC 9113 §6.8).
    pub(crate) fn on_go_away(&mut self, payload: &[u8]) -> Result<(), Fatal> {
        let (Some(last), Some(code)) = (payload.first_chunk::<4>(), payload.get(4..8)) else {
            return Err(Reason::FRAME_SIZE_ERROR.into());
        };
        let last = u32::from_be_bytes(*last) & MAX_STREAM;
        if self.goodbye.as_ref().is_some_and(|(before, _)| last > *before) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let error = Error::go_away(Reason::from(four(code)?), &payload[8..], By::Peer);
        if self.role == Role::Client {
            self.fail_above(last, &error);
        }
        self.goodbye = Some((last, error));
        self.wake();
        Ok(())
    }

    /// WINDOW_UPDATE (RFC 9113 §6.9).
    pub(crate) fn on_window_update(&mut self, id: u32, payload: &[u8]) -> Result<(), Fatal> {
        let more = i64::from(four(payload)? & MAX_STREAM);
        if id == 0 {
            if more == 0 {
                return Err(Reason::PROTOCOL_ERROR.into());
            }
            self.send_window += more;
            if self.send_window > MAX_WINDOW {
                return Err(Reason::FLOW_CONTROL_ERROR.into());
            }
            self.room_again();
            return Ok(());
        }
        if !self.was_opened(id) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.failed.is_none()) else {
            return Ok(());
        };
        if more == 0 {
            return self.made_to_reset(id, Reason::PROTOCOL_ERROR);
        }
        stream.send_window += more;
        if stream.send_window > MAX_WINDOW {
            return self.made_to_reset(id, Reason::FLOW_CONTROL_ERROR);
        }
        stream.wake_writer();
        Ok(())
    }

    /// PRIORITY (RFC 9113 §6.3), which means nothing any more.
    pub(crate) fn on_priority(&mut self, id: u32, payload: &[u8]) -> Result<(), Fatal> {
        if id == 0 {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let wrong = match payload.len() {
            5 if depends_on(payload) == Some(id) => Reason::PROTOCOL_ERROR,
            5 => return Ok(()),
            _ => Reason::FRAME_SIZE_ERROR,
        };
        if self.was_opened(id) {
            self.made_to_reset(id, wrong)
        } else {
            // There is nothing to reset.
            Err(wrong.into())
        }
    }
}

impl Stream {
    /// Whether so much more content is no more than what was said to come.
    fn takes(&mut self, bytes: usize) -> bool {
        let Some(left) = self.left else {
            return true;
        };
        let rest = left.checked_sub(bytes as u64);
        self.left = Some(rest.unwrap_or(0));
        rest.is_some()
    }
}

/// An answer's head, or what comes before it.
fn on_answer(stream: &mut Stream, ends: bool, fields: Incoming) -> Result<(), Fault> {
    let left = fields.content_length();
    let head = fields.response()?;
    let interim = head.status().is_informational();
    if interim && ends {
        return Err(Fault::Malformed);
    }
    if !interim {
        stream.expects_head = false;
        stream.headless |= matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // Their lengths are those of what a GET would bring (RFC 9110 §8.6): they have no content.
        stream.left = if stream.headless { Some(0) } else { left };
    }
    if stream.heads.len() >= HEADS {
        return Err(Fault::TooLarge);
    }
    if stream.recv_held {
        stream.heads.push(head);
    }
    Ok(())
}

fn on_trailers(stream: &mut Stream, ends: bool, fields: Incoming) -> Result<(), Fault> {
    let trailers: HeaderMap = fields.trailers()?;
    if !ends {
        return Err(Fault::Malformed);
    }
    if stream.recv_held {
        stream.trailers = Some(Box::new(trailers));
    }
    Ok(())
}

/// The stream that a priority depends on (RFC 9113 §6.3).
pub(crate) fn depends_on(priority: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*priority.first_chunk()?) & MAX_STREAM)
}

/// A payload that is a number.
fn four(payload: &[u8]) -> Result<u32, Fatal> {
    let bytes = payload
        .try_into()
        .map_err(|_| Fatal::from(Reason::FRAME_SIZE_ERROR))?;
    Ok(u32::from_be_bytes(bytes))
}
