//! What messages that are over leave to the next: tables of fields, and buffers. All connections of a thread share them, so
//! that one at rest keeps none.

use std::cell::RefCell;

use http::HeaderMap;

/// As many of each are kept.
const KEPT: usize = 16;
/// The most fields that a table has room for that is kept.
const FIELDS: usize = 64;
/// The most bytes that a buffer has room for that is kept, and what most heads fit into.
const BYTES: usize = 4 << 10;
const HEAD: usize = 512;

thread_local! {
    static TABLES: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty table with room for so many fields.
pub(super) fn table(fields: usize) -> HeaderMap {
    let mut table = TABLES.with_borrow_mut(Vec::pop).unwrap_or_default();
    table.reserve(fields);
    table
}

/// An empty buffer.
pub(super) fn buffer() -> Vec<u8> {
    let spare = BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(HEAD))
}

/// Keeps a table that nobody needs any more.
pub(super) fn keep_table(mut table: HeaderMap) {
    if table.capacity().max(table.len()) <= FIELDS {
        table.clear();
        TABLES.with_borrow_mut(|spare| keep(spare, table));
    }
}

/// Keeps a buffer that nobody needs any more.
pub(super) fn keep_buffer(mut buffer: Vec<u8>) {
    if (1..=BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        BUFFERS.with_borrow_mut(|spare| keep(spare, buffer));
    }
}

fn keep<T>(spare: &mut Vec<T>, one: T) {
    if spare.len() < KEPT {
        spare.push(one);
    }
}
