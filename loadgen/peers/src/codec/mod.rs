//! The protocols of the peers, as far as a load needs them: bytes in, bytes out.
//!
//! A codec is one connection's state. What it writes goes to the end of the buffer that it is given; what it reads it takes
//! from the front, a whole message at a time.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::program::Peer;

mod mqtt;
mod nats;
mod resp;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The connection stands.
    Greeted,
    /// The connection stands, and the server has kept the client's subscriptions.
    Resumed,
    /// A subscription holds.
    Subscribed,
    /// A message of a subject that is subscribed.
    Message(Bytes),
    /// A message was kept. Servers without request numbers answer in the order of the requests.
    Kept {
        /// The number that the request was given, if the protocol has one.
        request: Option<u64>,
        /// Where it stands in its stream.
        position: Position,
    },
    /// What was kept, in the order that was asked for.
    Entries(Vec<Entry>),
    /// A count, or a state, that was asked for.
    Counted(u64),
    /// An answer that says nothing more than that it was done.
    Done,
}

/// Where a message stands in its stream: later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u128);

/// A message that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The message.
    pub payload: Bytes,
}

/// How the newest messages of a subject come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// As one answer, the newest first.
    Entries,
    /// As messages, the oldest first, of a consumer whose making is answered, too.
    Messages,
}

/// Why a peer cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// It says no.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// It says something that a load does not expect.
    #[error("the peer said {0:?}")]
    Unexpected(String),
    /// It speaks another kind of protocol.
    #[error("{0} has no such connections")]
    NotSpoken(Peer),
}

/// What following kept messages takes beside a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// Nothing.
    None,
    /// A consumer of the stream, whose making is answered, too.
    Made,
}

/// A message that is sent to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep<'a> {
    /// The stream's subject.
    pub subject: &'a str,
    /// Number of the request, which its answer repeats if the protocol can.
    pub request: u64,
    /// The message.
    pub payload: &'a [u8],
}

/// One connection's protocol.
#[derive(Debug)]
pub enum Codec {
    /// The text protocol of NATS, with JetStream.
    Nats(nats::Nats),
    /// The second protocol of Redis.
    Resp(resp::Resp),
    /// MQTT 3.1.1.
    Mqtt(mqtt::Mqtt),
}

impl Codec {
    /// Of a connection with this number; the numbers of connections to one server differ. Peers for browsers have a
    /// [`Dialect`](crate::Dialect) instead, and moq-relay a client of its own.
    pub fn new(peer: Peer, number: u64) -> Result<Self, CodecError> {
        match peer {
            Peer::Nats => Ok(Self::Nats(nats::Nats::new(number))),
            Peer::Redis => Ok(Self::Resp(resp::Resp)),
            Peer::Mosquitto => Ok(Self::Mqtt(mqtt::Mqtt::new(number))),
            Peer::Ws | Peer::SocketIo | Peer::UWebSockets | Peer::Centrifugo | Peer::MoqRelay => {
                Err(CodecError::NotSpoken(peer))
            }
        }
    }

    /// The same of a client that comes back: the server keeps its subscriptions and what it misses, if it can.
    pub fn lasting(peer: Peer, number: u64) -> Result<Self, CodecError> {
        match peer {
            Peer::Mosquitto => Ok(Self::Mqtt(mqtt::Mqtt::lasting(number))),
            other => Self::new(other, number),
        }
    }

    /// The client's first bytes; the server answers with [`Incoming::Greeted`] or [`Incoming::Resumed`].
    pub fn greet(&self, out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.greet(out),
            Self::Resp(resp) => resp.greet(out),
            Self::Mqtt(mqtt) => mqtt.greet(out),
        }
    }

    /// Asks for the messages of some subjects. [`Incoming::Subscribed`] comes so many times, the last one when all hold.
    pub fn subscribe(&mut self, subjects: &[String], out: &mut BytesMut) -> usize {
        match self {
            Self::Nats(nats) => nats.subscribe(subjects, out),
            Self::Resp(resp) => {
                resp.subscribe(subjects, out);
                return subjects.len();
            }
            Self::Mqtt(mqtt) => mqtt.subscribe(subjects, out),
        }
        1
    }

    /// Sends a message to who is there.
    pub fn publish(&self, subject: &str, payload: &[u8], out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.publish(subject, payload, out),
            Self::Resp(resp) => resp.publish(subject, payload, out),
            Self::Mqtt(mqtt) => mqtt.publish(subject, payload, out),
        }
    }

    /// Makes what messages are kept in, if that must be made.
    pub fn make_stream(&self, subjects: &str, out: &mut BytesMut) -> Result<(), CodecError> {
        match self {
            Self::Nats(nats) => nats.make_stream(subjects, out),
            Self::Resp(resp) => resp.greet(out),
            Self::Mqtt(_) => return Err(no_streams()),
        }
        Ok(())
    }

    /// Sends a message to be kept, in MQTT for clients that come back; the answer is [`Incoming::Kept`].
    pub fn keep(&self, message: Keep<'_>, out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.keep(message, out),
            Self::Resp(resp) => resp.keep(message, out),
            Self::Mqtt(mqtt) => mqtt.keep(message, out),
        }
    }

    /// Sends a message to be kept and then to go to who follows; the answer is [`Incoming::Kept`]. Nobody gets it before it is
    /// kept.
    pub fn keep_and_publish(&self, message: Keep<'_>, out: &mut BytesMut) {
        self.keep(message, out);
        // Consumers of a stream get it from there. Redis sends what it was told in one turn after the sync of that turn.
        if let Self::Resp(resp) = self {
            resp.publish(message.subject, message.payload, out);
        }
    }

    /// Asks for the messages of a subject once they are kept; the answers are [`Incoming::Subscribed`], and
    /// [`Incoming::Done`] where a consumer has to be made.
    pub fn follow_kept(&mut self, subject: &str, out: &mut BytesMut) -> Result<Consumer, CodecError> {
        match self {
            Self::Nats(nats) => {
                nats.consume(subject, out);
                Ok(Consumer::Made)
            }
            Self::Resp(resp) => {
                resp.subscribe(&[subject.to_owned()], out);
                Ok(Consumer::None)
            }
            Self::Mqtt(_) => Err(no_streams()),
        }
    }

    /// Asks for what was kept after these positions of some streams; the answer is [`Incoming::Entries`], stream after stream.
    /// Without anything to tell it comes at once, unless it is to wait for something.
    pub fn read_after(
        &self,
        streams: &[(String, Position)],
        waits: bool,
        out: &mut BytesMut,
    ) -> Result<(), CodecError> {
        match self {
            Self::Resp(resp) => resp.read_after(streams, waits, out),
            Self::Nats(_) | Self::Mqtt(_) => return Err(CodecError::Unexpected("only Redis reads streams so".into())),
        }
        Ok(())
    }

    /// Asks for the newest `count` of the `kept` messages of a subject.
    pub fn newest(&mut self, subject: &str, kept: u64, count: usize, out: &mut BytesMut) -> Result<Newest, CodecError> {
        match self {
            Self::Nats(nats) => {
                nats.replay(subject, (kept + 1).saturating_sub(count as u64), out);
                Ok(Newest::Messages)
            }
            Self::Resp(resp) => {
                resp.newest(subject, count, out);
                Ok(Newest::Entries)
            }
            Self::Mqtt(_) => Err(no_streams()),
        }
    }

    /// Ends what [`Newest::Messages`] came from; the answer is [`Incoming::Done`].
    pub fn end_replay(&self, out: &mut BytesMut) {
        if let Self::Nats(nats) = self {
            nats.end_replay(out);
        }
    }

    /// Asks how many messages are kept; the answer is [`Incoming::Counted`].
    pub fn count(&self, subject: &str, out: &mut BytesMut) -> Result<(), CodecError> {
        match self {
            Self::Nats(nats) => nats.count(out),
            Self::Resp(resp) => resp.count(subject, out),
            Self::Mqtt(_) => return Err(no_streams()),
        }
        Ok(())
    }

    /// The next message of the server, if all of it is there. What the protocol wants answered at once goes to `out`.
    pub fn decode(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Incoming>, CodecError> {
        match self {
            Self::Nats(nats) => nats.decode(input, out),
            Self::Resp(resp) => resp.decode(input),
            Self::Mqtt(mqtt) => mqtt.decode(input, out),
        }
    }
}

fn no_streams() -> CodecError {
    CodecError::Unexpected("MQTT has no streams".into())
}

/// Takes a line without its end, if it is there whole.
fn line(input: &mut BytesMut) -> Option<BytesMut> {
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    let mut line = input.split_to(end + 2);
    line.truncate(end);
    Some(line)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut, the same messages come.
    pub(super) fn decode_in_pieces(codec: &mut Codec, bytes: &[u8], piece: usize) -> (Vec<Incoming>, BytesMut) {
        let (mut input, mut out, mut found) = (BytesMut::new(), BytesMut::new(), Vec::new());
        for some in bytes.chunks(piece) {
            input.extend_from_slice(some);
            while let Some(incoming) = codec.decode(&mut input, &mut out).unwrap() {
                found.push(incoming);
            }
        }
        assert!(input.is_empty(), "{input:?} is left");
        (found, out)
    }
}
