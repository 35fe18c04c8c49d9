//! The registry: every frame with its number, direction, QUIC stream and the authority that it needs.
//!
//! Names, numbers, directions and authorization entries exist only here; a frame without an entry does not compile.
//! Numbers are never reused.

/// Who sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the broker.
    ToBroker,
    /// From the broker to a client.
    ToClient,
}

/// Priority class, and with it the QUIC stream that a frame travels on. Lower is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// The bidirectional stream that the client opens first.
    Control = 0,
    /// Events of subscribed logs.
    Events = 1,
    /// Cursors, presence, digests and signals: newest wins.
    State = 2,
    /// Parts of messages in progress. Reserved.
    Tokens = 3,
    /// Pages of history.
    Backfill = 4,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 5] = [Self::Control, Self::Events, Self::State, Self::Tokens, Self::Backfill];

    /// Reads the number of a class.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == number)
    }
}

/// What a session must be allowed to do before the broker acts on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Nothing: part of the handshake.
    Open,
    /// To be a trunk, which its certificate proves.
    Edge,
    /// An authenticated session, acting on what is its own.
    Session,
    /// To read the log: any member, or a grant of `read`.
    Read,
    /// To send to the log: any member who is not blocked, or a grant of `send`.
    Send,
    /// To signal to the log: any member, or a grant of `signal`.
    Signal,
    /// To join a conversation: its join policy decides.
    Join,
    /// To change a conversation and its members: owner, admin, or a grant of `manage`.
    Manage,
    /// To delete a conversation or change roles: owner, or a grant of `manage`.
    Own,
    /// To bring a history in: a service with scope `act_as` and a grant of `manage`.
    Import,
    /// Not a request: sent by the broker.
    Broker,
}

macro_rules! registry {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $direction:ident, $class:ident, $authority:ident;)+) => {
        /// Type of a frame. See the crate's `SPEC.md` for bodies.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FrameType {
            $($(#[$doc])* $variant = $number,)+
        }

        impl FrameType {
            /// Every frame type, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Reads the number of a type.
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name used in the specification, JSON, logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Reads the name of a type.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Who sends it.
            pub fn direction(self) -> Direction {
                match self {
                    $(Self::$variant => Direction::$direction,)+
                }
            }

            /// The stream it travels on.
            pub fn class(self) -> Class {
                match self {
                    $(Self::$variant => Class::$class,)+
                }
            }

            /// What its sender must be allowed to do.
            pub fn authority(self) -> Authority {
                match self {
                    $(Self::$variant => Authority::$authority,)+
                }
            }
        }
    };
}

registry! {
    /// First frame of a client: versions, token, device.
    Hello = 0x01, "HELLO", ToBroker, Control, Open;
    /// The session is established.
    Welcome = 0x02, "WELCOME", ToClient, Control, Broker;
    /// A fresh token for the running session.
    Auth = 0x03, "AUTH", ToBroker, Control, Session;
    /// The client ends its session.
    Bye = 0x04, "BYE", ToBroker, Control, Session;
    /// The broker asks the client to come back elsewhere or later.
    Goaway = 0x05, "GOAWAY", ToClient, Control, Broker;
    /// First frame of a stream that the broker opens: its class, in the header's id.
    Open = 0x06, "OPEN", ToClient, Events, Broker;
    /// A request was carried out; the body depends on the request.
    Ok = 0x07, "OK", ToClient, Control, Broker;
    /// A request was refused, or, with id 0, the connection is about to be closed.
    Error = 0x08, "ERROR", ToClient, Control, Broker;
    /// The gateway lost its way to the broker and the socket stays: the client says HELLO again.
    Resume = 0x09, "RESUME", ToClient, Control, Broker;

    /// Follow a log from a position.
    Subscribe = 0x10, "SUBSCRIBE", ToBroker, Control, Read;
    /// Answer to SUBSCRIBE; gives the log its handle.
    Attach = 0x11, "ATTACH", ToClient, Events, Broker;
    /// Stop following.
    Unsubscribe = 0x12, "UNSUBSCRIBE", ToBroker, Control, Session;
    /// Read history.
    Fetch = 0x13, "FETCH", ToBroker, Control, Read;
    /// Answer to FETCH: rows.
    Page = 0x14, "PAGE", ToClient, Backfill, Broker;
    /// Answer to FETCH of messages as of a head.
    MessagesPage = 0x15, "MESSAGES_PAGE", ToClient, Backfill, Broker;
    /// One row of a subscribed log.
    Event = 0x16, "EVENT", ToClient, Events, Broker;
    /// Positions that this reader will not get.
    Skip = 0x17, "SKIP", ToClient, Events, Broker;
    /// The subscription fell behind and ended here; subscribe again from the last position.
    Behind = 0x18, "BEHIND", ToClient, Events, Broker;
    /// The subscription ended: removed, or the conversation was deleted.
    Detach = 0x19, "DETACH", ToClient, Events, Broker;
    /// Move one's own delivered and read positions.
    Cursor = 0x1a, "CURSOR", ToBroker, Control, Read;
    /// Somebody's cursor moved.
    Cursors = 0x1b, "CURSORS", ToClient, State, Broker;
    /// Digest of a followed log that is not subscribed.
    Head = 0x1c, "HEAD", ToClient, State, Broker;
    /// Own conversations: heads, own cursors, preferences.
    Sync = 0x1d, "SYNC", ToBroker, Control, Session;

    /// Append one event.
    Send = 0x20, "SEND", ToBroker, Control, Send;
    /// The event is durable.
    Ack = 0x21, "ACK", ToClient, Control, Broker;
    /// Append up to a hundred events to one log.
    SendBatch = 0x22, "SEND_BATCH", ToBroker, Control, Send;
    /// One result per record of a batch.
    BatchAck = 0x23, "BATCH_ACK", ToClient, Control, Broker;
    /// Hide an event from oneself.
    Hide = 0x24, "HIDE", ToBroker, Control, Read;
    /// Append events of another system, with the times that they had there.
    Import = 0x25, "IMPORT", ToBroker, Control, Import;

    /// Create a conversation; a direct one is found or created.
    ConversationCreate = 0x30, "CONVERSATION_CREATE", ToBroker, Control, Session;
    /// Read a conversation and its members.
    ConversationGet = 0x31, "CONVERSATION_GET", ToBroker, Control, Read;
    /// Change title, description, avatar, policies.
    ConversationUpdate = 0x33, "CONVERSATION_UPDATE", ToBroker, Control, Manage;
    /// Delete a conversation.
    ConversationDelete = 0x34, "CONVERSATION_DELETE", ToBroker, Control, Own;
    /// Add members.
    MemberAdd = 0x35, "MEMBER_ADD", ToBroker, Control, Manage;
    /// Remove a member.
    MemberRemove = 0x36, "MEMBER_REMOVE", ToBroker, Control, Manage;
    /// Change a member's role.
    MemberSetRole = 0x37, "MEMBER_SET_ROLE", ToBroker, Control, Own;
    /// Join as the conversation's policy allows.
    Join = 0x38, "JOIN", ToBroker, Control, Join;
    /// Leave.
    Leave = 0x39, "LEAVE", ToBroker, Control, Read;
    /// Own preferences of a conversation: pin, mute.
    Preferences = 0x3a, "PREFERENCES", ToBroker, Control, Session;
    /// Block or unblock a user.
    Block = 0x3b, "BLOCK", ToBroker, Control, Session;

    /// Typing and other ephemeral signals to a log.
    Signal = 0x40, "SIGNAL", ToBroker, Control, Signal;
    /// Somebody's signal.
    Signaled = 0x41, "SIGNALED", ToClient, State, Broker;
    /// Set one's own presence status.
    PresenceSet = 0x42, "PRESENCE_SET", ToBroker, Control, Session;
    /// A user's presence changed.
    Presence = 0x43, "PRESENCE", ToClient, State, Broker;
    /// Watch the presence of users.
    PresenceSubscribe = 0x44, "PRESENCE_SUBSCRIBE", ToBroker, Control, Session;

    /// End sessions of a user and refuse tokens issued before now.
    Revoke = 0x50, "REVOKE", ToBroker, Control, Session;

    /// A session begins on a trunk.
    ChannelOpen = 0x60, "CHANNEL_OPEN", ToBroker, Control, Edge;
    /// A session's client is gone.
    ChannelClose = 0x61, "CHANNEL_CLOSE", ToBroker, Control, Edge;
    /// A session's client does not keep up with a log.
    Lag = 0x62, "LAG", ToBroker, Control, Edge;
    /// A session on a trunk has ended.
    ChannelClosed = 0x63, "CHANNEL_CLOSED", ToClient, Control, Broker;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: BTreeSet<u8> = FrameType::ALL.iter().map(|t| *t as u8).collect();
        let names: BTreeSet<&str> = FrameType::ALL.iter().map(|t| t.name()).collect();
        assert_eq!((numbers.len(), names.len()), (FrameType::ALL.len(), FrameType::ALL.len()));
        for frame_type in FrameType::ALL {
            assert_eq!(FrameType::from_number(*frame_type as u8), Some(*frame_type));
            assert_eq!(FrameType::from_name(frame_type.name()), Some(*frame_type));
        }
    }

    #[test]
    fn every_request_names_an_authority_and_every_answer_is_the_brokers() {
        for frame_type in FrameType::ALL {
            let from_broker = frame_type.direction() == Direction::ToClient;
            assert_eq!(from_broker, frame_type.authority() == Authority::Broker, "{}", frame_type.name());
            if !from_broker {
                assert_eq!(frame_type.class(), Class::Control, "{}", frame_type.name());
            }
        }
    }
}
