//! What memory is made of: small pages, where huge ones would be mostly empty.

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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_that_huge_pages_are_refused() {
        refuse_huge_pages().unwrap();
        assert!(nix::sys::prctl::get_thp_disable().unwrap());
    }
}
