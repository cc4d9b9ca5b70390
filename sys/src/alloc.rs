//! Counting allocations by thread, so that tests can hold the data path to a budget.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// An allocator that counts what each thread asks of it. For tests and benches: the proxy itself runs without.
///
/// ```
/// use outrigger_sys::alloc::{Counting, counts};
/// #[global_allocator]
/// static ALLOCATOR: Counting<std::alloc::System> = Counting(std::alloc::System);
/// let before = counts();
/// let boxed = Box::new([0u8; 100]);
/// assert_eq!(counts().since(before).allocations, 1);
/// # drop(boxed);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting<A>(pub A);

/// What one thread has asked of the allocator since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pieces of memory asked for; one that grows or shrinks in place or by moving counts again.
    pub allocations: u64,
    /// Bytes asked for, freed or not.
    pub bytes: u64,
    /// Bytes asked for by this thread, minus bytes freed by this thread. It may be negative: memory that crosses
    /// threads is freed where it ends. Over all threads the sum is what is in use.
    pub live: i64,
}

thread_local! {
    // Initialised at compile time and without a destructor: reading it never allocates, and works until the thread's
    // last instruction.
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, bytes: 0, live: 0 }) };
}

/// What this thread has asked for so far; nothing if [`Counting`] is not the global allocator.
pub fn counts() -> Counts {
    COUNTS.get()
}

/// How often this thread has asked for memory so far.
pub fn allocations() -> u64 {
    counts().allocations
}

impl Counts {
    /// What was asked for after `earlier`, which is of the same thread.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            bytes: self.bytes - earlier.bytes,
            live: self.live - earlier.live,
        }
    }
}

/// Counts memory that was handed out, and memory that came back with it or without.
fn count(allocated: Option<usize>, freed: usize) {
    // A size fits, since no layout is larger than isize::MAX.
    let mut counts = COUNTS.get();
    if let Some(size) = allocated {
        counts.allocations += 1;
        counts.bytes += size as u64;
        counts.live += size as i64;
    }
    counts.live -= freed as i64;
    COUNTS.set(counts);
}

// SAFETY: every call goes to `A` with the arguments as they are, so its guarantees are kept; counting neither allocates
// nor panics (the sums of what fits into memory fit into 64 bits).
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(Some(layout.size()), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(None, layout.size());
        // SAFETY: `ptr` came from `A` by this layout, since each method here only passes on.
        unsafe { self.0.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(Some(layout.size()), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(Some(new_size), layout.size());
        // SAFETY: `ptr` came from `A` by this layout; the caller answers for the new size.
        unsafe { self.0.realloc(ptr, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::thread;

    // SAFETY of what the tests call: every pointer is used with the layout it was made by, and once.
    const ALLOCATOR: Counting<System> = Counting(System);

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_counted_and_what_is_freed_is_no_longer_live() {
        let before = counts();
        // SAFETY: the size is not 0.
        let ptr = unsafe { ALLOCATOR.alloc(layout(100)) };
        let held = counts().since(before);
        let expected = Counts {
            allocations: 1,
            bytes: 100,
            live: 100,
        };
        assert_eq!(held, expected);
        // SAFETY: made above by the same layout.
        unsafe { ALLOCATOR.dealloc(ptr, layout(100)) };
        assert_eq!(counts().since(before), Counts { live: 0, ..held });
    }

    #[test]
    fn memory_that_grows_counts_again_and_keeps_what_it_holds() {
        let before = counts();
        // SAFETY: the sizes are not 0, and each pointer is used with the layout it has then.
        let zeroes = unsafe {
            let ptr = ALLOCATOR.alloc_zeroed(layout(64));
            let grown = ALLOCATOR.realloc(ptr, layout(64), 4096);
            let zeroes = std::slice::from_raw_parts(grown, 64).to_vec();
            assert_eq!(counts().since(before).live, 4096);
            ALLOCATOR.dealloc(grown, layout(4096));
            zeroes
        };
        assert_eq!(zeroes, [0; 64]);
        let seen = counts().since(before);
        assert_eq!((seen.allocations, seen.bytes, seen.live), (2, 64 + 4096, 0));
    }

    #[test]
    fn one_thread_never_sees_what_another_asks_for() {
        let before = counts();
        let theirs = thread::spawn(|| {
            // SAFETY: made and freed by the same layout, whose size is not 0.
            unsafe { ALLOCATOR.dealloc(ALLOCATOR.alloc(layout(8)), layout(8)) };
            allocations()
        });
        assert_eq!(theirs.join().unwrap(), 1);
        assert_eq!(counts(), before);
    }
}
