//! What memory is made of: small pages, where huge ones would be mostly empty, and none for what has been done.

use std::io;

#[cfg(target_os = "linux")]
use std::ffi::c_void;
#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::ops::Range;
#[cfg(target_os = "linux")]
use std::ptr::{self, NonNull};

#[cfg(target_os = "linux")]
use nix::sys::mman::{MmapAdvise, madvise};

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

/// Gives the pages of the program and its libraries back that were only read; how many bytes may be mapped again.
///
/// The code of a start runs once, and stays in memory for as long as nobody asks for its room. What is run again comes
/// back from the page cache, which all copies on a machine share.
///
/// # Errors
/// Those of reading `/proc/self/smaps` (proc(5)) and of madvise(2).
#[cfg(target_os = "linux")]
pub fn release_code() -> io::Result<usize> {
    let mut released = 0;
    for Range { start, end } in unwritten(&fs::read_to_string("/proc/self/smaps")?) {
        let Some(address) = NonNull::new(ptr::with_exposed_provenance_mut::<c_void>(start)) else {
            continue;
        };
        // SAFETY: a private mapping of a file that can't be written and has no page of its own: whoever reads it again
        // finds there what the file has, as before.
        unsafe { madvise(address, end - start, MmapAdvise::MADV_DONTNEED) }?;
        released += end - start;
    }
    Ok(released)
}

/// Elsewhere it stays.
#[cfg(not(target_os = "linux"))]
pub fn release_code() -> io::Result<usize> {
    Ok(0)
}

/// The mappings of files that nobody can write, and nobody has: neither a loader's relocations nor a debugger's breakpoints
/// are in them.
#[cfg(target_os = "linux")]
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let mut mappings = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [range, "r-xp" | "r--p", _offset, _device, inode, _path, ..] if inode != "0" => {
                current = range.split_once('-').and_then(|(start, end)| {
                    let address = |text| usize::from_str_radix(text, 16).ok();
                    Some(address(start)?..address(end)?)
                });
            }
            ["Anonymous:", "0", "kB"] => mappings.extend(current.take()),
            ["Anonymous:", ..] => current = None,
            _ => {}
        }
    }
    mappings
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_that_huge_pages_are_refused() {
        refuse_huge_pages().unwrap();
        assert!(nix::sys::prctl::get_thp_disable().unwrap());
    }

    #[test]
    fn what_was_written_or_may_be_is_never_given_back() {
        let smaps = "\
55d000-55e000 r-xp 00001000 08:01 12 /bin/proxy
Anonymous:             0 kB
55e000-55f000 r--p 00002000 08:01 12 /bin/proxy
Anonymous:             4 kB
55f000-560000 rw-p 00003000 08:01 12 /bin/proxy
Anonymous:             0 kB
560000-561000 r--p 00000000 08:01 13 /lib/with spaces (deleted)
Anonymous:             0 kB
7ff000-800000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
800000-801000 r--p 00000000 00:00 0
Anonymous:             0 kB
";
        assert_eq!(unwritten(smaps), [0x55d000..0x55e000, 0x560000..0x561000]);
    }

    #[test]
    fn code_runs_on_when_its_pages_were_given_back() {
        let code_that_runs_now = release_code().unwrap();
        assert!(code_that_runs_now > 1 << 20, "{code_that_runs_now}");
        assert_eq!(release_code().unwrap(), code_that_runs_now);
    }
}
