//! What a channel of a trunk leads to.

use std::fmt::Debug;

use antiphon_edge::Overflow;
use antiphon_protocol::{Class, ErrorCode};

use crate::shown::Shown;

/// The gateway's end of a session: a WebSocket, a stream of server-sent events, or the session behind HTTP requests.
pub(crate) trait Reader: Debug + Send + Sync {
    /// Takes in a frame of the broker.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if an event does not fit: the session lags behind its log.
    fn deliver(&self, class: Class, shown: &mut Shown<'_>) -> Result<(), Overflow>;

    /// The broker has ended the session, with its last word before this.
    fn ended(&self, code: Option<ErrorCode>);

    /// The trunk is gone.
    fn lost(&self);
}
