//! What memory is made of (small pages, where huge ones would be mostly empty), and how it goes back.

use std::io;

/// From here on the kernel gives this process no transparent huge pages (`PR_SET_THP_DISABLE`).
///
/// A process whose heap is a few mebibytes pays for each 2 MiB page in full as soon as it writes one byte of it.
///
/// # Errors
/// Those of prctl(2), which every kernel since Linux 3.15 knows.
#[cfg(target_os = "linux")]
pub fn refuse_huge_pages() -> io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

/// Elsewhere nobody gives any.
#[cfg(not(target_os = "linux"))]
pub fn refuse_huge_pages() -> io::Result<()> {
    Ok(())
}

/// Gives the system back what this thread has freed, and what has been free for all: at once, where the allocator (mimalloc)
/// would wait for a while and for being used. With another allocator it does nothing.
pub fn give_back() {
    #[cfg(feature = "mimalloc")]
    // SAFETY: It may be called at any time; it touches nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(true)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_that_huge_pages_are_refused() {
        refuse_huge_pages().unwrap();
        assert!(nix::sys::prctl::get_thp_disable().unwrap());
    }
}
