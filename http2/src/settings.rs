//! SETTINGS (RFC 9113 §6.5).

use bytes::{BufMut, BytesMut};

use crate::error::{Fatal, Reason};
use crate::frame::{self, INITIAL_WINDOW, MAX_MAX_FRAME_SIZE, MAX_WINDOW, MIN_MAX_FRAME_SIZE};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 §3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What the peer has announced so far.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) header_table: usize,
    /// `None`: any number.
    pub(crate) max_streams: Option<u32>,
    pub(crate) initial_window: i64,
    pub(crate) max_frame: usize,
    pub(crate) connect_protocol: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            header_table: 4096,
            max_streams: None,
            initial_window: INITIAL_WINDOW,
            max_frame: MIN_MAX_FRAME_SIZE as usize,
            connect_protocol: false,
        }
    }
}

impl Peer {
    /// Takes in a frame's payload.
    ///
    /// # Errors
    /// A value that a setting can't have.
    pub(crate) fn update(&mut self, payload: &[u8], of_client: bool) -> Result<(), Fatal> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FRAME_SIZE_ERROR.into());
        }
        for &[i0, i1, v0, v1, v2, v3] in entries {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            self.set(u16::from_be_bytes([i0, i1]), value, of_client)?;
        }
        Ok(())
    }

    fn set(&mut self, id: u16, value: u32, of_client: bool) -> Result<(), Fatal> {
        match id {
            HEADER_TABLE_SIZE => self.header_table = value as usize,
            // A server may not even announce that it takes pushes (RFC 9113 §6.5.2).
            ENABLE_PUSH if value > u32::from(of_client) => return Err(Reason::PROTOCOL_ERROR.into()),
            MAX_CONCURRENT_STREAMS => self.max_streams = Some(value),
            INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                return Err(Reason::FLOW_CONTROL_ERROR.into());
            }
            INITIAL_WINDOW_SIZE => self.initial_window = i64::from(value),
            MAX_FRAME_SIZE if !(MIN_MAX_FRAME_SIZE..=MAX_MAX_FRAME_SIZE).contains(&value) => {
                return Err(Reason::PROTOCOL_ERROR.into());
            }
            MAX_FRAME_SIZE => self.max_frame = value as usize,
            // Once announced, it stays (RFC 8441 §3).
            ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.connect_protocol) => {
                return Err(Reason::PROTOCOL_ERROR.into());
            }
            ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
            // What else there is changes nothing for us; unknown ones are to be ignored.
            _ => {}
        }
        Ok(())
    }
}

/// What we announce.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    /// `None` for a client, which takes no streams.
    pub(crate) max_streams: Option<u32>,
    pub(crate) initial_window: u32,
    pub(crate) max_frame: u32,
    pub(crate) max_header_list: u32,
}

impl Ours {
    /// Writes the frame.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let role: &[_] = match self.max_streams {
            Some(streams) => &[(MAX_CONCURRENT_STREAMS, streams), (ENABLE_CONNECT_PROTOCOL, 1)],
            None => &[(ENABLE_PUSH, 0)],
        };
        let common = [
            (INITIAL_WINDOW_SIZE, self.initial_window),
            (MAX_FRAME_SIZE, self.max_frame),
            (MAX_HEADER_LIST_SIZE, self.max_header_list),
        ];
        frame::put_head(out, 6 * (role.len() + common.len()), frame::SETTINGS, 0, 0);
        for (id, value) in role.iter().copied().chain(common) {
            out.put_u16(id);
            out.put_u32(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEAD;

    fn update(id: u16, value: u32) -> Result<Peer, Reason> {
        let mut payload = BytesMut::new();
        payload.put_u16(id);
        payload.put_u32(value);
        let mut peer = Peer::default();
        peer.update(&payload, true)
            .map(|()| peer)
            .map_err(|fatal| fatal.0)
    }

    #[test]
    fn values_that_a_setting_cannot_have_are_errors() {
        assert_eq!(update(ENABLE_PUSH, 2).unwrap_err(), Reason::PROTOCOL_ERROR);
        assert_eq!(
            update(INITIAL_WINDOW_SIZE, 1 << 31).unwrap_err(),
            Reason::FLOW_CONTROL_ERROR
        );
        assert_eq!(
            update(MAX_FRAME_SIZE, 16_383).unwrap_err(),
            Reason::PROTOCOL_ERROR
        );
        assert_eq!(
            update(MAX_FRAME_SIZE, 1 << 24).unwrap_err(),
            Reason::PROTOCOL_ERROR
        );
        assert_eq!(
            update(ENABLE_CONNECT_PROTOCOL, 2).unwrap_err(),
            Reason::PROTOCOL_ERROR
        );
        let mut peer = Peer::default();
        assert_eq!(
            peer.update(&[0; 5], true).unwrap_err().0,
            Reason::FRAME_SIZE_ERROR
        );
    }

    #[test]
    fn values_are_taken_and_unknown_settings_ignored() {
        assert_eq!(update(MAX_CONCURRENT_STREAMS, 7).unwrap().max_streams, Some(7));
        assert_eq!(update(INITIAL_WINDOW_SIZE, 1).unwrap().initial_window, 1);
        assert_eq!(update(MAX_FRAME_SIZE, 20_000).unwrap().max_frame, 20_000);
        assert_eq!(update(HEADER_TABLE_SIZE, 0).unwrap().header_table, 0);
        assert!(update(ENABLE_CONNECT_PROTOCOL, 1).unwrap().connect_protocol);
        assert!(update(0xfff, 9).is_ok());
    }

    #[test]
    fn a_server_may_not_speak_of_pushes() {
        let mut payload = BytesMut::new();
        payload.put_u16(ENABLE_PUSH);
        payload.put_u32(1);
        assert!(Peer::default().update(&payload, false).is_err());
    }

    #[test]
    fn what_we_announce_is_what_a_peer_takes_in() {
        let ours = Ours {
            max_streams: Some(100),
            initial_window: 1 << 20,
            max_frame: 1 << 15,
            max_header_list: 1 << 14,
        };
        let mut out = BytesMut::new();
        ours.put(&mut out);
        let mut peer = Peer::default();
        peer.update(&out[HEAD..], false).unwrap();
        assert_eq!((peer.max_streams, peer.initial_window), (Some(100), 1 << 20));
        assert_eq!((peer.max_frame, peer.connect_protocol), (1 << 15, true));
    }
}
