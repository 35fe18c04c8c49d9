//! NATS client protocol, and the part of the JetStream API that keeps messages. <https://docs.nats.io/reference/reference-protocols>

use std::io::Write;

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};

use super::{CodecError, Incoming, Keep, Position, line, text};

/// The one stream of a load.
const STREAM: &str = "load";
/// Subscription of the answers to requests; those of messages come after it. Of two with one number the server takes the first.
const ANSWERS: u64 = 1;

/// One connection.
#[derive(Debug)]
pub struct Nats {
    /// Requests are answered to subjects below it.
    inbox: String,
    /// The last subscription's number.
    subscription: u64,
    has_replayed: bool,
    /// A message whose header line was read: its subscription, the last part of its subject, and its length.
    pending: Option<(bool, Option<u64>, usize)>,
    is_greeted: bool,
}

impl Nats {
    pub(super) fn new(number: u64) -> Self {
        Self {
            inbox: format!("_INBOX.{number}"),
            subscription: ANSWERS,
            has_replayed: false,
            pending: None,
            is_greeted: false,
        }
    }

    pub(super) fn greet(&self, out: &mut BytesMut) {
        out.put_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"lang\":\"rust\",\"version\":\"1\"}\r\n",
        );
        write(out, format_args!("SUB {}.* {ANSWERS}\r\n", self.inbox));
        out.put_slice(b"PING\r\n");
    }

    pub(super) fn subscribe(&mut self, subjects: &[String], out: &mut BytesMut) {
        for subject in subjects {
            self.subscription += 1;
            write(out, format_args!("SUB {subject} {}\r\n", self.subscription));
        }
        // A PONG comes when the subscriptions hold.
        out.put_slice(b"PING\r\n");
    }

    pub(super) fn publish(&self, subject: &str, payload: &[u8], out: &mut BytesMut) {
        write(out, format_args!("PUB {subject} {}\r\n", payload.len()));
        out.put_slice(payload);
        out.put_slice(b"\r\n");
    }

    pub(super) fn make_stream(&self, subjects: &str, out: &mut BytesMut) {
        let stream = json!({
            "name": STREAM, "subjects": [subjects], "storage": "file", "retention": "limits", "discard": "old",
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": 100_000, "num_replicas": 1,
        });
        self.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), u64::MAX, stream.to_string().as_bytes(), out);
    }

    pub(super) fn keep(&self, message: Keep<'_>, out: &mut BytesMut) {
        self.request(message.subject, message.request, message.payload, out);
    }

    /// A consumer that pushes what the stream has of this subject from now on to a subject of this connection.
    pub(super) fn consume(&mut self, subject: &str, out: &mut BytesMut) {
        self.subscribe(&[self.deliver()], out);
        let consumer = json!({
            "stream_name": STREAM,
            "config": {
                "deliver_subject": self.deliver(), "filter_subject": subject, "deliver_policy": "new", "ack_policy": "none",
                "replay_policy": "instant", "mem_storage": true,
            },
        });
        self.request(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), u64::MAX, consumer.to_string().as_bytes(), out);
    }

    /// A consumer that pushes what the stream has of this subject from a number on.
    pub(super) fn replay(&mut self, subject: &str, first: u64, out: &mut BytesMut) {
        // All replays of a connection come the same way, one after the other.
        if !self.has_replayed {
            self.has_replayed = true;
            self.subscription += 1;
            write(out, format_args!("SUB {} {}\r\n", self.deliver(), self.subscription));
        }
        let consumer = json!({
            "stream_name": STREAM,
            "config": {
                "name": self.consumer(), "deliver_subject": self.deliver(), "filter_subject": subject,
                "deliver_policy": "by_start_sequence", "opt_start_seq": first, "ack_policy": "none",
                "replay_policy": "instant", "mem_storage": true,
            },
        });
        let create = format!("$JS.API.CONSUMER.CREATE.{STREAM}.{}.{subject}", self.consumer());
        self.request(&create, u64::MAX, consumer.to_string().as_bytes(), out);
    }

    pub(super) fn end_replay(&self, out: &mut BytesMut) {
        self.request(&format!("$JS.API.CONSUMER.DELETE.{STREAM}.{}", self.consumer()), u64::MAX, b"", out);
    }

    /// The name of this connection's consumer.
    fn consumer(&self) -> String {
        self.inbox.replace("_INBOX.", "replay")
    }

    /// Where consumers push to.
    fn deliver(&self) -> String {
        self.inbox.replace("_INBOX", "deliver")
    }

    pub(super) fn count(&self, out: &mut BytesMut) {
        self.request(&format!("$JS.API.STREAM.INFO.{STREAM}"), u64::MAX, b"", out);
    }

    fn request(&self, subject: &str, number: u64, payload: &[u8], out: &mut BytesMut) {
        write(out, format_args!("PUB {subject} {}.{number} {}\r\n", self.inbox, payload.len()));
        out.put_slice(payload);
        out.put_slice(b"\r\n");
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Incoming>, CodecError> {
        loop {
            if let Some((is_answer, request, length)) = self.pending {
                if input.len() < length + 2 {
                    return Ok(None);
                }
                self.pending = None;
                let mut payload = input.split_to(length + 2);
                payload.truncate(length);
                return if is_answer { answer(request, &payload) } else { Ok(Incoming::Message(payload.freeze())) }
                    .map(Some);
            }
            let Some(line) = line(input) else { return Ok(None) };
            match line[..].split(|byte| *byte == b' ').next().unwrap_or_default() {
                b"MSG" => self.pending = Some(header(&line)?),
                b"PING" => out.put_slice(b"PONG\r\n"),
                // The first answers the greeting, the next ones subscriptions.
                b"PONG" if self.is_greeted => return Ok(Some(Incoming::Subscribed)),
                b"PONG" => {
                    self.is_greeted = true;
                    return Ok(Some(Incoming::Greeted));
                }
                b"INFO" | b"+OK" => {}
                b"-ERR" => return Err(CodecError::Refused(text(&line))),
                _ => return Err(CodecError::Unexpected(text(&line))),
            }
        }
    }
}

/// `MSG subject subscription [reply-to] length`
fn header(line: &[u8]) -> Result<(bool, Option<u64>, usize), CodecError> {
    let unexpected = || CodecError::Unexpected(text(line));
    let line = std::str::from_utf8(line).map_err(|_| unexpected())?;
    let mut parts = line.split(' ').skip(1);
    let (subject, subscription) = parts.next().zip(parts.next()).ok_or_else(unexpected)?;
    let length = parts.last().and_then(|length| length.parse().ok()).ok_or_else(unexpected)?;
    let request = subject.rsplit('.').next().and_then(|number| number.parse().ok());
    Ok((subscription.parse() == Ok(ANSWERS), request, length))
}

/// An answer of JetStream: to a message that it keeps, or to a request of its API.
fn answer(request: Option<u64>, payload: &[u8]) -> Result<Incoming, CodecError> {
    let answer: Value = serde_json::from_slice(payload).map_err(|_| CodecError::Unexpected(text(payload)))?;
    if let Some(error) = answer.get("error") {
        return Err(CodecError::Refused(error.to_string()));
    }
    if answer["duplicate"].as_bool() == Some(true) {
        return Err(CodecError::Unexpected(text(payload)));
    }
    if let Some(seq) = answer["seq"].as_u64() {
        return Ok(Incoming::Kept { request, position: Position(seq.into()) });
    }
    match answer["state"]["messages"].as_u64() {
        Some(messages) => Ok(Incoming::Counted(messages)),
        None if answer["config"].is_object() || answer["success"].as_bool() == Some(true) => Ok(Incoming::Done),
        None => Err(CodecError::Unexpected(text(payload))),
    }
}

fn write(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // A buffer that grows refuses nothing.
    let _ = out.writer().write_fmt(text);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::Codec, *};
    use crate::{codec::tests::decode_in_pieces, program::Peer};

    #[test]
    fn messages_and_answers_come_however_the_bytes_are_cut() {
        let message = |subject: &str, subscription: u8, payload: &str| {
            format!("MSG {subject} {subscription} {}\r\n{payload}\r\n", payload.len())
        };
        let bytes = [
            "INFO {\"server_id\":\"x\"}\r\nPONG\r\nPONG\r\n".to_owned(),
            message("room", 2, "hel\r\n"),
            "PING\r\n".to_owned(),
            message("_INBOX.7.42", 1, r#"{"stream":"load", "seq":9000}"#),
            message("_INBOX.7.1", 1, r#"{"state":{"messages":12},"config":{}}"#),
            message("_INBOX.7.2", 1, r#"{"config":{}}"#),
            message("_INBOX.7.2", 1, r#"{"type":"io.nats.jetstream.api.v1.consumer_delete_response","success":true}"#),
        ]
        .concat();
        for piece in 1..bytes.len() {
            let mut codec = Codec::new(Peer::Nats, 7).unwrap();
            let (found, out) = decode_in_pieces(&mut codec, bytes.as_bytes(), piece);
            let expected = [
                Incoming::Greeted,
                Incoming::Subscribed,
                Incoming::Message(Bytes::from_static(b"hel\r\n")),
                Incoming::Kept { request: Some(42), position: Position(9000) },
                Incoming::Counted(12),
                Incoming::Done,
                Incoming::Done,
            ];
            assert_eq!(found, expected, "in pieces of {piece}");
            assert_eq!(&out[..], b"PONG\r\n");
        }
    }

    #[test]
    fn refusals_are_errors() {
        let refused = |bytes: &[u8]| {
            Codec::new(Peer::Nats, 1).unwrap().decode(&mut BytesMut::from(bytes), &mut BytesMut::new()).unwrap_err()
        };
        assert!(matches!(refused(b"-ERR 'Unknown Protocol Operation'\r\n"), CodecError::Refused(_)));
        assert!(matches!(refused(b"MSG _INBOX.1.4 1 22\r\n{\"error\":{\"code\":503}}\r\n"), CodecError::Refused(_)));
        assert!(matches!(refused(b"MSG room\r\n"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"HTTP/1.1 400\r\n"), CodecError::Unexpected(_)));
    }

    #[test]
    fn requests_name_where_they_are_answered() {
        let mut out = BytesMut::new();
        Nats::new(3).keep(Keep { subject: "c.1", request: 8, payload: b"hi" }, &mut out);
        assert_eq!(&out[..], b"PUB c.1 _INBOX.3.8 2\r\nhi\r\n");
    }

    #[test]
    fn no_two_subscriptions_have_one_number() {
        let (mut nats, mut out) = (Nats::new(3), BytesMut::new());
        nats.greet(&mut out);
        nats.subscribe(&["a".into(), "b".into()], &mut out);
        nats.subscribe(&["c".into()], &mut out);
        let out = text(&out);
        let subscriptions: Vec<&str> = out.lines().filter(|line| line.starts_with("SUB")).collect();
        assert_eq!(subscriptions, ["SUB _INBOX.3.* 1", "SUB a 2", "SUB b 3", "SUB c 4"]);
        assert_eq!(out.matches("PING").count(), 1 + 2);
    }
}
