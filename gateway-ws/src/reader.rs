//! What a channel of a trunk leads to.

use std::fmt::Debug;

use antiphon_edge::Overflow;
use antiphon_protocol::{Class, ErrorCode};

use crate::shown::Shown;

/// What is to be done after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Nothing, or somebody else has been told already.
    Done,
    /// To flush, once for all of a burst.
    Waits,
}

/// The gateway's end of a session: a WebSocket, a stream of server-sent events, or the session behind HTTP requests.
pub(crate) trait Reader: Debug + Send + Sync {
    /// Takes in a frame of the broker. [`Self::flush`] follows when all of a burst have been taken in.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if an event does not fit: the session lags behind its log.
    fn deliver(&self, class: Class, shown: &mut Shown<'_>) -> Result<Delivered, Overflow>;

    /// Writes what the socket takes at once.
    fn flush(&self) {}

    /// The broker has ended the session, with its last word before this.
    fn ended(&self, code: Option<ErrorCode>);

    /// The trunk is gone.
    fn lost(&self);
}
