//! What a client is in the middle of, as far as a lost connection is concerned.

/// The phases in which a connection is cut on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// From the wish to connect to WELCOME.
    Connect,
    /// A send was written and is not durable.
    Send,
    /// A send is durable and its sender does not know.
    Ack,
    /// A subscription was asked for and has not taken hold, or its inlined rows are on their way.
    HandOver,
    /// Subscribed, and nothing else is going on.
    Live,
    /// Pages are on their way.
    Page,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [Self::Connect, Self::Send, Self::Ack, Self::HandOver, Self::Live, Self::Page];

    /// Its name in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Ack => "ack",
            Self::HandOver => "hand-over",
            Self::Live => "live",
            Self::Page => "page",
        }
    }
}
