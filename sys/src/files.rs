//! How many files this process may have open; every connection is one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many files this process may have open now (`RLIMIT_NOFILE`, the soft limit).
///
/// # Errors
/// That of getrlimit(2), which has none for this.
pub fn limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Raises the soft limit to the hard one, and answers what holds from now on.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2); some systems have a hard limit that can't be used (`EINVAL`, `EPERM`).
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    limit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_rises_to_the_hard_one_and_no_further() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        assert_eq!(limit().unwrap(), hard / 2);
        assert_eq!(raise_limit().unwrap(), hard);
        assert_eq!(raise_limit().unwrap(), hard);
    }
}
