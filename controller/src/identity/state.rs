//! The state directory: the CA's certificate and key and the token key, made once and then only read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::ca::{Ca, CaError};
use crate::identity::token::{InvalidKey, TokenKey};

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TOKEN_KEY: &str = "token.key";
const FILES: [&str; 3] = [CA_CERTIFICATE, CA_KEY, TOKEN_KEY];

/// What a state directory holds.
#[derive(Debug)]
pub struct State {
    /// The mesh's root of trust.
    pub ca: Arc<Ca>,
    /// Signs and checks service-account tokens.
    pub tokens: TokenKey,
    /// The root certificate in PEM, as proxies want it in `LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS`.
    pub trust_anchors: String,
}

/// Why a state directory cannot be used. Every message names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or the directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner could read or change it.
    #[error("{}: other users have access (mode {mode:04o}); run: chmod {want} {}", path.display(), path.display())]
    Permissions {
        /// The directory or key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        want: &'static str,
    },
    /// Some of the files are there, others not.
    #[error(
        "{}: {missing} missing, though {present} exists; restore it from a backup, or remove the others to begin \
         a new mesh whose proxies all need the new trust anchors", dir.display()
    )]
    Incomplete {
        /// The state directory.
        dir: PathBuf,
        /// Names of the files that are there.
        present: String,
        /// Names of the files that are not.
        missing: String,
    },
    /// Certificate or key of the CA is not usable.
    #[error("{}: ca.crt, ca.key: {source}", dir.display())]
    Ca {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong.
        source: CaError,
    },
    /// The token key is not usable.
    #[error("{}: token.key: {source}", dir.display())]
    Token {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong.
        source: InvalidKey,
    },
    /// The token key could not be made.
    #[error("making the token key failed")]
    Make(#[source] rcgen::Error),
}

impl State {
    /// Reads a state directory, making it and its three files if none of them is there.
    ///
    /// Blocks. Processes that start at the same time take turns, so all of them see the same files.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        make_dir(dir)?;
        let lock_path = dir.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;

        let (present, missing): (Vec<&str>, Vec<&str>) =
            FILES.into_iter().partition(|name| dir.join(name).exists());
        if present.is_empty() {
            make_files(dir)?;
        } else if !missing.is_empty() {
            return Err(StateError::Incomplete {
                dir: dir.into(),
                present: present.join(", "),
                missing: missing.join(", "),
            });
        }
        load(dir)
    }
}

fn make_dir(dir: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(at(dir))?;
    refuse_others(dir, "700")
}

fn make_files(dir: &Path) -> Result<(), StateError> {
    let (certificate, key) = Ca::make(SystemTime::now()).map_err(|source| StateError::Ca {
        dir: dir.into(),
        source,
    })?;
    let token = TokenKey::make().map_err(StateError::Make)?;
    // All are on disk under other names before the first gets its own: a full disk leaves nothing half made.
    let contents = [(CA_KEY, key), (TOKEN_KEY, token), (CA_CERTIFICATE, certificate)];
    for (name, text) in &contents {
        write_synced(&fresh(dir, name), text)?;
    }
    for (name, _) in &contents {
        let path = dir.join(name);
        fs::rename(fresh(dir, name), &path).map_err(at(&path))?;
    }
    File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir))
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.new"))
}

fn write_synced(path: &Path, text: &str) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at(path))
}

fn load(dir: &Path) -> Result<State, StateError> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(at(&path))
    };
    for key in [CA_KEY, TOKEN_KEY] {
        refuse_others(&dir.join(key), "600")?;
    }
    let trust_anchors = read(CA_CERTIFICATE)?;
    let ca = Ca::load(&trust_anchors, &read(CA_KEY)?).map_err(|source| StateError::Ca {
        dir: dir.into(),
        source,
    })?;
    let tokens = TokenKey::load(&read(TOKEN_KEY)?).map_err(|source| StateError::Token {
        dir: dir.into(),
        source,
    })?;
    Ok(State {
        ca: Arc::new(ca),
        tokens,
        trust_anchors,
    })
}

fn refuse_others(path: &Path, want: &'static str) -> Result<(), StateError> {
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(StateError::Permissions {
        path: path.into(),
        mode,
        want,
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    |source| StateError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_state_is_made_once_and_then_read() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("mesh/state");
        let first = State::open(&dir).unwrap();
        let again = State::open(&dir).unwrap();
        assert_eq!(first.trust_anchors, again.trust_anchors);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        for name in FILES {
            let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn processes_that_start_together_see_one_authority() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        let open = || State::open(&dir).unwrap().trust_anchors;
        let anchors: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(anchors.iter().all(|text| *text == anchors[0]));
    }

    #[test]
    fn keys_and_directories_open_to_others_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        State::open(&dir).unwrap();
        for (path, wide, right) in [
            (dir.clone(), 0o755, 0o700),
            (dir.join(CA_KEY), 0o640, 0o600),
            (dir.join(TOKEN_KEY), 0o604, 0o600),
        ] {
            chmod(&path, wide);
            let error = State::open(&dir).unwrap_err().to_string();
            assert!(
                error.contains(&format!("chmod {right:o} {}", path.display())),
                "{error}"
            );
            chmod(&path, right);
        }
        State::open(&dir).unwrap();
    }

    #[test]
    fn a_missing_file_is_named_and_never_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        State::open(&dir).unwrap();
        for name in FILES {
            let kept = fs::read(dir.join(name)).unwrap();
            fs::remove_file(dir.join(name)).unwrap();
            let error = State::open(&dir).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} missing")), "{error}");
            assert!(!dir.join(name).exists());
            write_synced(&dir.join(name), std::str::from_utf8(&kept).unwrap()).unwrap();
        }
        State::open(&dir).unwrap();
    }

    #[test]
    fn a_spoiled_file_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        State::open(&dir).unwrap();
        for name in [TOKEN_KEY, CA_CERTIFICATE] {
            fs::write(dir.join(name), "spoiled").unwrap();
            let error = State::open(&dir).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
