//! The connection that is being made, and a better one that is looked for meanwhile.

use std::{
    future::{Future, pending, ready},
    pin::Pin,
};

use super::{Cause, Link, Ways};
use crate::Carrier;

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What has come of it.
pub(crate) enum News {
    /// A connection was made, or not.
    Connected(Result<Link, Cause>),
    /// A better one than that in use stands. The next [`Route::connect`] takes it.
    Better,
}

pub(crate) struct Route {
    ways: Ways,
    connecting: Pending<Result<Link, Cause>>,
    seeking: Pending<Link>,
    better: Option<Link>,
    /// What carries the connection in use.
    carrier: Option<Carrier>,
}

impl Route {
    pub(crate) fn new(ways: Ways) -> Self {
        Self { ways, connecting: None, seeking: None, better: None, carrier: None }
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self) {
        self.connecting = Some(match self.better.take().filter(Link::stands) {
            Some(link) => Box::pin(ready(Ok(link))),
            None => Box::pin(self.ways.connect()),
        });
    }

    /// Nobody wants to connect any more.
    pub(crate) fn give_up(&mut self) {
        self.connecting = None;
    }

    /// What happens next. Cancel-safe.
    pub(crate) async fn news(&mut self) -> News {
        tokio::select! {
            result = slot(&mut self.connecting) => {
                self.connecting = None;
                self.carrier = result.as_ref().ok().map(Link::carrier);
                self.ways.used(self.carrier);
                self.seek();
                News::Connected(result)
            }
            link = slot(&mut self.seeking) => {
                self.seeking = None;
                self.better = Some(link);
                News::Better
            }
        }
    }

    /// The connection in use led to a session.
    pub(crate) fn session_stands(&mut self) {
        self.ways.session_stands();
    }

    /// Whether a better connection was found and still stands; one that does not is looked for again.
    pub(crate) fn has_better(&mut self) -> bool {
        if self.better.as_ref().is_some_and(|link| !link.stands()) {
            self.better = None;
            self.seek();
        }
        self.better.is_some()
    }

    /// Looks for a better way than the one in use, unless one is looked for or has been found.
    fn seek(&mut self) {
        let Some(carrier) = self.carrier else { return };
        match self.ways.seek(carrier) {
            Some(seeking) if self.seeking.is_none() && self.better.is_none() => self.seeking = Some(Box::pin(seeking)),
            Some(_) => {}
            None => (self.seeking, self.better) = (None, None),
        }
    }
}

/// Resolves with the future in `slot`, or never.
async fn slot<T>(slot: &mut Pending<T>) -> T {
    match slot {
        Some(future) => future.await,
        None => pending().await,
    }
}
