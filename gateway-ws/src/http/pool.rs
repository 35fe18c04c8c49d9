//! Sessions by token, kept for a while after their last request, so that a back end does not log in for each.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use antiphon_protocol::{ErrorCode, control, limits::TOKEN_BYTES_MAX};
use ring::digest::{SHA256, digest};
use tokio::sync::OnceCell;

use super::session::{Session, refusal};
use crate::trunk::Trunks;

/// A session that nobody used for so long is ended.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Sessions of one worker. More: requests with further tokens are refused for now.
const SESSIONS_MAX: usize = 10_000;

/// Sessions by SHA-256 of their token: tokens are not kept.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    entries: Mutex<HashMap<[u8; 32], Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    session: OnceCell<Arc<Session>>,
    used: Mutex<Instant>,
}

impl Pool {
    /// The session of a token, which begins now if there is none.
    pub(super) async fn session(
        &self,
        trunks: &Trunks,
        remote: SocketAddr,
        token: &str,
    ) -> Result<Arc<Session>, control::Error> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(refusal(ErrorCode::TokenInvalid, "authorization", "expected `Bearer` and a token"));
        }
        let key = hash(token);
        let entry = self.entry(key)?;
        match entry
            .session
            .get_or_try_init(|| async { Session::begin(trunks, remote, token).await.map(Arc::new) })
            .await
        {
            Ok(session) => Ok(Arc::clone(session)),
            Err(error) => {
                self.lock().remove(&key);
                Err(error)
            }
        }
    }

    fn entry(&self, key: [u8; 32]) -> Result<Arc<Entry>, control::Error> {
        let mut entries = self.lock();
        if let Some(entry) =
            entries.get(&key).filter(|entry| entry.session.get().is_none_or(|session| !session.is_over()))
        {
            *entry.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= SESSIONS_MAX {
            return Err(refusal(ErrorCode::Overloaded, "", "too many sessions"));
        }
        let entry = Arc::new(Entry { session: OnceCell::new(), used: Mutex::new(Instant::now()) });
        entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    /// Ends the sessions that nobody needs any more; called now and then.
    pub(crate) fn sweep(&self) {
        self.lock().retain(|_, entry| {
            let idle = entry.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            let is_over = entry.session.get().is_some_and(|session| session.is_over());
            !is_over && (idle < IDLE_MAX || Arc::strong_count(entry) > 1)
        });
    }

    /// Sessions that are kept.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}
