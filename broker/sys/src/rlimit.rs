//! The limit of open files, which also bounds sockets.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The process's limit of open descriptors; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// In force before the call.
    pub before: Option<u64>,
    /// In force now.
    pub now: Option<u64>,
}

/// Raises the soft limit of open files to the hard one, which needs no privilege.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(OpenFiles { before: limit.current, now: getrlimit(Resource::Nofile).current })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert_eq!(raised.now, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_open_files().unwrap().before, raised.now);
    }
}
