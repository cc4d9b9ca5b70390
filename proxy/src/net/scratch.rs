//! Buffers that all connections of a thread share: what is read goes there first, so that no connection has to keep one.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes taken from a socket at a time.
const SIZE: usize = 64 << 10;

/// Bytes of an allocation that what is kept shares. Whoever keeps any of them keeps all.
const SHARED: usize = 8 << 10;
/// Bytes from which on they get an allocation of their own.
const LARGE: usize = 2 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
    static KEPT: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(SHARED));
}

/// Lends it; its content is whatever somebody else has left there. Within `used` it can't be lent again.
pub fn with<T>(used: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| used(buffer))
}

/// A copy for as long as a message lives. Small ones share allocations.
pub fn keep(bytes: &[u8]) -> Bytes {
    if bytes.len() >= LARGE {
        return Bytes::copy_from_slice(bytes);
    }
    KEPT.with_borrow_mut(|kept| {
        kept.extend_from_slice(bytes);
        kept.split().freeze()
    })
}
