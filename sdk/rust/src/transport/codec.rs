//! Another form for the messages of a socket.

use std::fmt;

use bytes::Bytes;

/// Writes frames as lines of text messages, so that what is tested goes the way of clients that speak that form.
pub trait MessageCodec: fmt::Debug + Send + Sync {
    /// The sub-protocol.
    fn protocol(&self) -> &'static str;
    /// A whole frame of the client as a line, without its end.
    ///
    /// # Errors
    ///
    /// For people: why it has no such form.
    fn encode(&self, frame: &Bytes) -> Result<String, String>;
    /// A line of the broker as a whole frame.
    ///
    /// # Errors
    ///
    /// For people: why it is none.
    fn decode(&self, line: &str) -> Result<Bytes, String>;
}
