//! The one safe face of the platform: allocations, pages, socket options, processors and network namespaces.

pub mod alloc;
pub mod cpu;
pub mod memory;
pub mod netns;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{original_dst, set_keepalive, set_user_timeout};

#[cfg(not(target_os = "linux"))]
mod fallback;
#[cfg(not(target_os = "linux"))]
pub use fallback::{original_dst, set_keepalive, set_user_timeout};
