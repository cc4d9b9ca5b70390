//! The one safe face of the platform: allocations, pages, socket options, processors, open files and network namespaces.

pub mod alloc;
pub mod cpu;
pub mod files;
pub mod memory;
pub mod netns;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{expect_no_congestion, original_dst, reset_on_close, set_keepalive, set_user_timeout};

#[cfg(not(target_os = "linux"))]
mod fallback;
#[cfg(not(target_os = "linux"))]
pub use fallback::{expect_no_congestion, original_dst, reset_on_close, set_keepalive, set_user_timeout};
