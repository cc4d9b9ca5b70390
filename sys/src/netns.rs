//! Network namespaces: enter, leave for a new one, create and delete by name as `ip netns` does.

#[cfg(target_os = "linux")]
pub use linux::{create, delete, enter, isolate};
#[cfg(not(target_os = "linux"))]
pub use other::{create, delete, enter, isolate};

#[cfg(target_os = "linux")]
mod linux {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, setns, unshare};
    use std::fs::{self, File};
    use std::path::{Path, PathBuf};
    use std::{io, thread};

    /// Where `ip netns` keeps names.
    const NAMES: &str = "/run/netns";

    /// Moves the current thread, and what it starts from now on, into the namespace behind `path` (`/run/netns/<name>`,
    /// `/proc/<pid>/ns/net`). Other threads stay where they are: call it first thing, or on a thread of its own.
    ///
    /// # Errors
    /// Those of open(2) and setns(2): the path does not exist or is no network namespace, CAP_SYS_ADMIN is missing.
    pub fn enter(path: impl AsRef<Path>) -> io::Result<()> {
        Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
    }

    /// Moves the current thread, and what it starts from now on, into a new namespace without a name, `lo` still down.
    /// The namespace ends with its last thread or socket.
    ///
    /// # Errors
    /// That of unshare(2): CAP_SYS_ADMIN is missing.
    pub fn isolate() -> io::Result<()> {
        Ok(unshare(CloneFlags::CLONE_NEWNET)?)
    }

    /// Makes a namespace that stays until [`delete`], and answers its path; `ip netns` sees it under the same name.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `InvalidInput` when it is no plain file name; CAP_SYS_ADMIN is needed.
    pub fn create(name: &str) -> io::Result<PathBuf> {
        let path = path_of(name)?;
        fs::create_dir_all(NAMES)?;
        File::create_new(&path)?;
        pin_new_namespace(&path).inspect_err(|_| {
            // Nothing is mounted here: what is left is an empty file that would block the name.
            let _ = fs::remove_file(&path);
        })?;
        Ok(path)
    }

    /// Takes the name away; the namespace itself ends when nothing runs in it any more.
    ///
    /// # Errors
    /// `NotFound` when there is no such name, `InvalidInput` when it is no plain file name; CAP_SYS_ADMIN is needed.
    pub fn delete(name: &str) -> io::Result<()> {
        let path = path_of(name)?;
        umount2(&path, MntFlags::MNT_DETACH)?;
        fs::remove_file(path)
    }

    fn path_of(name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a namespace name"),
            ));
        }
        Ok(Path::new(NAMES).join(name))
    }

    /// A thread of its own makes the namespace, so that the caller's does not change; the bind mount keeps it alive.
    fn pin_new_namespace(path: &Path) -> io::Result<()> {
        let bind = || -> io::Result<()> {
            isolate()?;
            Ok(mount(
                Some("/proc/thread-self/ns/net"),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?)
        };
        thread::scope(|scope| scope.spawn(bind).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::net::TcpListener;

        #[test]
        fn a_named_namespace_can_be_entered_until_deleted() {
            let name = format!("sys-test-{}", std::process::id());
            let path = create(&name).expect("run the tests as root");
            assert_eq!(create(&name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let entered = path.clone();
            let inside = thread::spawn(move || {
                enter(&entered).unwrap();
                fs::read_link("/proc/thread-self/ns/net").unwrap()
            });
            assert_ne!(
                inside.join().unwrap(),
                fs::read_link("/proc/thread-self/ns/net").unwrap()
            );
            delete(&name).unwrap();
            assert_eq!(enter(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        }

        #[test]
        fn an_isolated_thread_sees_no_interface_that_is_up() {
            let bound = thread::spawn(|| {
                isolate().expect("run the tests as root");
                std::net::TcpStream::connect("127.0.0.1:9").unwrap_err().kind()
            });
            assert_eq!(bound.join().unwrap(), io::ErrorKind::NetworkUnreachable);
            TcpListener::bind("127.0.0.1:0").unwrap();
        }

        #[test]
        fn a_name_with_a_path_in_it_is_refused() {
            for name in ["", ".", "..", "a/b", "../etc"] {
                assert_eq!(
                    create(name).unwrap_err().kind(),
                    io::ErrorKind::InvalidInput,
                    "{name}"
                );
                assert_eq!(
                    delete(name).unwrap_err().kind(),
                    io::ErrorKind::InvalidInput,
                    "{name}"
                );
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::io;
    use std::path::{Path, PathBuf};

    /// Always `Unsupported`: only Linux has network namespaces.
    pub fn enter(_path: impl AsRef<Path>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always `Unsupported`: only Linux has network namespaces.
    pub fn isolate() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always `Unsupported`: only Linux has network namespaces.
    pub fn create(_name: &str) -> io::Result<PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always `Unsupported`: only Linux has network namespaces.
    pub fn delete(_name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
