//! The second serialization protocol of Redis. <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use std::io::Write;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{CodecError, Entry, Incoming, Keep, Position, text};

/// One connection.
#[derive(Debug)]
pub struct Resp;

/// A value of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Simple(Bytes),
    Error(Bytes),
    Integer(i64),
    /// `None` is the null string.
    Bulk(Option<Bytes>),
    Array(Vec<Value>),
}

impl Resp {
    pub(super) fn greet(&self, out: &mut BytesMut) {
        command(out, &[b"PING"]);
    }

    pub(super) fn subscribe(&self, subjects: &[String], out: &mut BytesMut) {
        let words: Vec<&[u8]> = [&b"SUBSCRIBE"[..]].into_iter().chain(subjects.iter().map(String::as_bytes)).collect();
        command(out, &words);
    }

    pub(super) fn publish(&self, subject: &str, payload: &[u8], out: &mut BytesMut) {
        command(out, &[b"PUBLISH", subject.as_bytes(), payload]);
    }

    pub(super) fn keep(&self, message: Keep<'_>, out: &mut BytesMut) {
        command(out, &[b"XADD", message.subject.as_bytes(), b"*", b"m", message.payload]);
    }

    pub(super) fn read_after(&self, streams: &[(String, Position)], waits: bool, out: &mut BytesMut) {
        let mut words: Vec<&[u8]> = if waits { vec![b"XREAD", b"BLOCK", b"0"] } else { vec![b"XREAD"] };
        words.push(b"STREAMS");
        words.extend(streams.iter().map(|(subject, _)| subject.as_bytes()));
        let ids: Vec<String> = streams.iter().map(|(_, position)| id(*position)).collect();
        words.extend(ids.iter().map(String::as_bytes));
        command(out, &words);
    }

    pub(super) fn newest(&self, subject: &str, count: usize, out: &mut BytesMut) {
        command(out, &[b"XREVRANGE", subject.as_bytes(), b"+", b"-", b"COUNT", count.to_string().as_bytes()]);
    }

    pub(super) fn count(&self, subject: &str, out: &mut BytesMut) {
        command(out, &[b"XLEN", subject.as_bytes()]);
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, CodecError> {
        let mut cursor = &input[..];
        let Some(value) = value(&mut cursor)? else { return Ok(None) };
        let read = input.len() - cursor.len();
        input.advance(read);
        match value {
            Value::Error(error) => Err(CodecError::Refused(text(&error))),
            Value::Simple(word) if &word[..] == b"PONG" => Ok(Some(Incoming::Greeted)),
            Value::Simple(_) => Ok(Some(Incoming::Done)),
            Value::Integer(count) => Ok(Some(Incoming::Counted(count.unsigned_abs()))),
            Value::Bulk(Some(id)) => Ok(Some(Incoming::Kept { request: None, position: position(&id)? })),
            Value::Array(values) => match &values[..] {
                [Value::Bulk(Some(kind)), _, Value::Bulk(Some(payload))] if &kind[..] == b"message" => {
                    Ok(Some(Incoming::Message(payload.clone())))
                }
                [Value::Bulk(Some(kind)), _, Value::Integer(_)] if &kind[..] == b"subscribe" => {
                    Ok(Some(Incoming::Subscribed))
                }
                entries => Ok(Some(Incoming::Entries(self::entries(entries)?))),
            },
            Value::Bulk(None) => Err(CodecError::Unexpected("null".into())),
        }
    }
}

/// An array of strings.
fn command(out: &mut BytesMut, words: &[&[u8]]) {
    let write = |out: &mut BytesMut, mark: char, number: usize| {
        // A buffer that grows refuses nothing.
        let _ = write!(out.writer(), "{mark}{number}\r\n");
    };
    write(out, '*', words.len());
    for word in words {
        write(out, '$', word.len());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

/// The next value, if all of it is there; `input` is then behind it.
fn value(input: &mut &[u8]) -> Result<Option<Value>, CodecError> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = &input[..end];
    let Some((mark, rest)) = line.split_first() else { return Err(CodecError::Unexpected("an empty line".into())) };
    let number = || -> Result<i64, CodecError> {
        let number = std::str::from_utf8(rest).ok().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| CodecError::Unexpected(text(line)))
    };
    let behind = &input[end + 2..];
    let value = match mark {
        b'+' => Value::Simple(Bytes::copy_from_slice(rest)),
        b'-' => Value::Error(Bytes::copy_from_slice(rest)),
        b':' => Value::Integer(number()?),
        b'$' => match usize::try_from(number()?) {
            Ok(length) if behind.len() >= length + 2 => {
                *input = &behind[length + 2..];
                return Ok(Some(Value::Bulk(Some(Bytes::copy_from_slice(&behind[..length])))));
            }
            Ok(_) => return Ok(None),
            Err(_) => Value::Bulk(None),
        },
        b'*' => {
            let (mut cursor, mut values) = (behind, Vec::new());
            for _ in 0..number()? {
                match self::value(&mut cursor)? {
                    Some(value) => values.push(value),
                    None => return Ok(None),
                }
            }
            *input = cursor;
            return Ok(Some(Value::Array(values)));
        }
        _ => return Err(CodecError::Unexpected(text(line))),
    };
    *input = behind;
    Ok(Some(value))
}

/// The entries of a stream, or of some streams, each with its name before them.
fn entries(values: &[Value]) -> Result<Vec<Entry>, CodecError> {
    let mut found = Vec::new();
    for value in values {
        let unexpected = || CodecError::Unexpected(format!("{value:?}"));
        let Value::Array(parts) = value else { return Err(unexpected()) };
        let [Value::Bulk(Some(name)), Value::Array(inner)] = &parts[..] else { return Err(unexpected()) };
        match &inner[..] {
            [Value::Bulk(Some(_)), Value::Bulk(Some(payload))] => {
                found.push(Entry { position: position(name)?, payload: payload.clone() });
            }
            stream => found.extend(entries(stream)?),
        }
    }
    Ok(found)
}

fn id(position: Position) -> String {
    format!("{}-{}", position.0 >> 64, position.0 as u64)
}

/// The id of a stream's entry: `milliseconds-number`.
fn position(id: &[u8]) -> Result<Position, CodecError> {
    let numbers = std::str::from_utf8(id).ok().and_then(|id| id.split_once('-'));
    let numbers = numbers.and_then(|(ms, number)| ms.parse::<u64>().ok().zip(number.parse::<u64>().ok()));
    let (ms, number) = numbers.ok_or_else(|| CodecError::Unexpected(text(id)))?;
    Ok(Position(u128::from(ms) << 64 | u128::from(number)))
}

#[cfg(test)]
mod tests {
    use super::{super::Codec, *};
    use crate::{codec::tests::decode_in_pieces, program::Peer};

    #[test]
    fn values_come_however_the_bytes_are_cut() {
        let bytes = b"+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$5\r\nhel\r\n\r\n:500\r\n$8\r\n1700-012\r\n+OK\r\n";
        for piece in 1..bytes.len() {
            let mut codec = Codec::new(Peer::Redis, 7).unwrap();
            let expected = [
                Incoming::Greeted,
                Incoming::Subscribed,
                Incoming::Message(Bytes::from_static(b"hel\r\n")),
                Incoming::Counted(500),
                Incoming::Kept { request: None, position: Position((1700 << 64) + 12) },
                Incoming::Done,
            ];
            assert_eq!(decode_in_pieces(&mut codec, bytes, piece).0, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn entries_are_those_of_one_stream_or_of_some() {
        let entry = "*2\r\n$3\r\n7-1\r\n*2\r\n$1\r\nm\r\n$2\r\nhi\r\n";
        let stream = format!("*2\r\n$1\r\na\r\n*1\r\n{entry}");
        let decoded = |text: String| Resp.decode(&mut BytesMut::from(text.as_bytes()));
        let wanted = Entry { position: Position((7 << 64) + 1), payload: Bytes::from_static(b"hi") };
        let entries = |count| Ok(Some(Incoming::Entries(vec![wanted.clone(); count])));
        assert_eq!(decoded(format!("*2\r\n{entry}{entry}")), entries(2));
        assert_eq!(decoded(format!("*2\r\n{stream}{stream}")), entries(2));
        assert_eq!(decoded("*-1\r\n".into()), entries(0));
        assert!(decoded("*1\r\n$1\r\nx\r\n".into()).is_err());
        let mut out = BytesMut::new();
        Resp.read_after(&[("a".into(), wanted.position)], true, &mut out);
        assert!(text(&out).ends_with("STREAMS\r\n$1\r\na\r\n$3\r\n7-1\r\n"), "{out:?}");
    }

    #[test]
    fn refusals_are_errors() {
        let refused = |bytes: &[u8]| {
            Codec::new(Peer::Redis, 1).unwrap().decode(&mut BytesMut::from(bytes), &mut BytesMut::new()).unwrap_err()
        };
        assert_eq!(refused(b"-ERR unknown\r\n"), CodecError::Refused("ERR unknown".into()));
        assert!(matches!(refused(b"$-1\r\n"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"$2\r\nid\r\n"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"?\r\n"), CodecError::Unexpected(_)));
        assert!(matches!(refused(b"\r\n"), CodecError::Unexpected(_)));
    }

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut out = BytesMut::new();
        Resp.publish("room", b"hi", &mut out);
        assert_eq!(&out[..], b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n$2\r\nhi\r\n");
    }
}
