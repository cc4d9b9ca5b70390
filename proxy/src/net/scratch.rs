//! A buffer that all connections of a thread share: what is read goes there first, so that no connection has to keep one.

use std::cell::RefCell;

/// Bytes taken from a socket at a time.
const SIZE: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends it; its content is whatever somebody else has left there. Within `used` it can't be lent again.
pub fn with<T>(used: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| used(buffer))
}
