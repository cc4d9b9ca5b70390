//! What is to be written: frames in one buffer, and large payloads beside it, which are never copied.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::HEAD;

/// Payloads up to this many bytes are copied into the buffer: one part less to write costs more than the copy.
const COPIED: usize = 1024;
/// Parts that are written at once.
const PARTS: usize = 32;
/// A buffer that has grown beyond this is given back once it is empty, bytes.
const KEPT: usize = 32 << 10;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    frames: BytesMut,
    /// Each with how many bytes of `frames` lie between it and the one before.
    payloads: VecDeque<(usize, Bytes)>,
    /// Bytes of `frames` that lie before the last payload.
    before: usize,
    /// Bytes of `payloads`.
    beside: usize,
}

/// Batches that fill while another is written, and what of them has left.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    batch: Batch,
    /// Bytes that were ever put here, and those of them that have left.
    enqueued: u64,
    written: u64,
    /// Those that were taken to be written.
    taken: u64,
    /// Bytes of DATA that wait, and those that were taken to be written.
    data: usize,
    data_taken: usize,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.payloads.is_empty()
    }

    fn len(&self) -> usize {
        self.frames.len() + self.beside
    }

    /// Shows what is next to write, as few parts as may be.
    pub(crate) fn with_parts<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut parts = [IoSlice::new(&[]); PARTS];
        let (mut count, mut from) = (0, 0);
        let mut add = |bytes| {
            if count < PARTS && !<[u8]>::is_empty(bytes) {
                parts[count] = IoSlice::new(bytes);
                count += 1;
            }
        };
        for (between, payload) in self.payloads.iter().take(PARTS) {
            add(&self.frames[from..from + between]);
            add(payload);
            from += between;
        }
        if self.payloads.len() <= PARTS {
            add(&self.frames[from..]);
        }
        write(&parts[..count])
    }

    /// So many bytes have left.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some((between, payload)) = self.payloads.front_mut() else {
                self.frames.advance(count.min(self.frames.len()));
                break;
            };
            let taken = count.min(*between);
            self.frames.advance(taken);
            *between -= taken;
            self.before -= taken;
            count -= taken;
            let taken = count.min(payload.len());
            payload.advance(taken);
            self.beside -= taken;
            count -= taken;
            if payload.is_empty() {
                self.payloads.pop_front();
            }
        }
        if self.is_empty() {
            if self.frames.capacity() > KEPT {
                self.frames = BytesMut::new();
            }
            self.frames.clear();
        }
    }
}

impl Outgoing {
    /// Where frames are put, which [`Self::noted`] is told of.
    pub(crate) fn frames(&mut self) -> &mut BytesMut {
        &mut self.batch.frames
    }

    /// Bytes have been put into [`Self::frames`], which held `before` then.
    pub(crate) fn noted(&mut self, before: usize) {
        self.enqueued += (self.batch.frames.len() - before) as u64;
    }

    /// DATA's payload, behind its head, which counts as DATA too: there are no more of them than flow control allows bytes.
    pub(crate) fn payload(&mut self, payload: Bytes) {
        self.enqueued += payload.len() as u64;
        self.data += HEAD + payload.len();
        if payload.len() <= COPIED {
            self.batch.frames.extend_from_slice(&payload);
        } else {
            let batch = &mut self.batch;
            batch.beside += payload.len();
            batch
                .payloads
                .push_back((batch.frames.len() - batch.before, payload));
            batch.before = batch.frames.len();
        }
    }

    /// Takes what waits, in exchange for an empty batch.
    pub(crate) fn take(&mut self, empty: &mut Batch) {
        mem::swap(&mut self.batch, empty);
        self.data_taken += mem::take(&mut self.data);
        self.taken = self.enqueued;
    }

    /// What was not taken is never written.
    pub(crate) fn discard(&mut self) {
        self.batch = Batch::default();
        self.data = 0;
        self.enqueued = self.taken;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Everything that was taken has left.
    pub(crate) fn all_written(&mut self) {
        self.written = self.enqueued - self.batch.len() as u64;
        self.data_taken = 0;
    }

    /// So many bytes have left of what was taken; everything that was taken has not.
    pub(crate) fn some_written(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Bytes that have not left.
    pub(crate) fn waiting(&self) -> usize {
        (self.enqueued - self.written) as usize
    }

    /// Of those, the ones that flow control does not bound.
    pub(crate) fn unbounded(&self) -> usize {
        self.waiting().saturating_sub(self.data())
    }

    /// Bytes of DATA that wait.
    pub(crate) fn data(&self) -> usize {
        self.data + self.data_taken
    }

    /// Where in the stream of bytes the next one will lie.
    pub(crate) fn position(&self) -> u64 {
        self.enqueued
    }

    /// Whether what lies there may have begun to leave.
    pub(crate) fn has_left(&self, position: u64) -> bool {
        self.taken > position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Outgoing, bytes: &[u8]) {
        let before = out.frames().len();
        out.frames().extend_from_slice(bytes);
        out.noted(before);
    }

    /// Writes all of it, `step` bytes at a time.
    fn written(batch: &mut Batch, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !batch.is_empty() {
            let before = all.len();
            batch.with_parts(|parts| all.extend(parts.iter().flat_map(|part| part.iter()).take(step)));
            assert!(all.len() > before, "there is always something to write");
            batch.advance(all.len() - before);
        }
        all
    }

    #[test]
    fn everything_leaves_in_its_order_however_it_is_cut() {
        for step in [1, 7, 1_000, 100_000] {
            let (mut out, mut expected) = (Outgoing::default(), Vec::new());
            for n in 0..100u8 {
                let payload = vec![n; usize::from(n) * 37];
                put(&mut out, &[n, 0xff]);
                out.payload(payload.clone().into());
                expected.extend([n, 0xff]);
                expected.extend(payload);
            }
            let mut batch = Batch::default();
            out.take(&mut batch);
            assert_eq!(written(&mut batch, step), expected);
            out.all_written();
            assert_eq!((out.waiting(), out.data()), (0, 0));
        }
    }

    #[test]
    fn what_has_left_is_known() {
        let (mut out, mut batch) = (Outgoing::default(), Batch::default());
        put(&mut out, b"first");
        let second = out.position();
        assert!(!out.has_left(second));
        put(&mut out, b"second");
        out.take(&mut batch);
        assert!(out.has_left(second), "who knows how far the writing of it came");
        let data = out.position();
        put(&mut out, &[0; HEAD]);
        out.payload(Bytes::from_static(b"data"));
        assert!(!out.has_left(data));
        out.some_written(6);
        assert_eq!((out.waiting(), out.unbounded(), out.data()), (18, 5, 13));
        out.all_written();
        assert_eq!((out.waiting(), out.unbounded(), out.data()), (13, 0, 13));
        out.discard();
        assert!(out.is_empty() && !out.has_left(data));
        assert_eq!((out.waiting(), out.data()), (0, 0));
    }

    #[test]
    fn a_buffer_that_has_grown_is_given_back() {
        let mut batch = Batch::default();
        batch.frames.extend_from_slice(&[0; 2 * KEPT]);
        batch.advance(2 * KEPT);
        assert_eq!(batch.frames.capacity(), 0);
    }
}
