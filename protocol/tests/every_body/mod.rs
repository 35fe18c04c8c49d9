//! Every decoder of a body, by name; shared by the tests and the fuzz targets.
//!
//! Whatever a decoder accepts has to be written again as it was read. That is checked here, so that arbitrary bytes
//! prove more than the absence of a panic.

use antiphon_protocol::{
    DecodeError, Envelope, EventKind, Row, control, frames, header::HEADER_BYTES, limits::ENVELOPE_BYTES_MAX,
};
use bytes::Bytes;
use prost::Message;

macro_rules! messages {
    ($($message:ident)+) => {
        /// Names of the Protobuf messages.
        #[allow(dead_code)]
        pub(crate) const MESSAGES: &[&str] = &[$(stringify!($message)),+];

        /// Reads `body` as the request that carries this Protobuf message.
        #[allow(dead_code)]
        pub(crate) fn decode_message(message: &str, body: &Bytes) -> Result<(), DecodeError> {
            match message {
                $(stringify!($message) => decode::<control::$message>(body),)+
                other => panic!("{other} is not a control message"),
            }
        }

        /// Reads `body` with every decoder there is; returns how many accepted it.
        #[allow(dead_code)]
        pub(crate) fn decode_every_body(body: &Bytes) -> usize {
            let messages = [$(decode::<control::$message>(body).is_ok()),+];
            let sends = [decode_send(body), decode_batch(body), decode_import(body)];
            let hot = [decode_ack(body), decode_page(body), decode_row(body), decode_envelope(body)];
            let all = messages.into_iter().chain(sends).chain(hot);
            all.filter(|accepted| *accepted).count()
        }
    };
}

messages! {
    Hello Welcome Auth Authenticated Bye Goaway Error Resume ChannelOpen Subscribe Attach Unsubscribe Detach Fetch MessagesPage Cursor MemberCursor Head
    ConversationCreate ConversationGet Conversation ConversationUpdate ConversationDelete MemberAdd MemberRemove
    MemberSetRole Join Leave Signal Signaled BatchAck MemberEvent ConversationEvent
    Sync Synced SyncedLog LastMessage Hide Preferences Block Revoke ConversationAdded ConversationRemoved Revoked PresenceSet PresenceSubscribe Presence
}

/// Reads a body strictly. What is accepted is read alike as an answer and written alike.
fn decode<M: Message + Default + PartialEq>(body: &Bytes) -> Result<(), DecodeError> {
    let lenient = frames::decode_answer::<M>(body);
    let message: M = frames::decode_request(body)?;
    assert!(lenient.as_ref() == Ok(&message));
    assert!(message.encode_to_vec() == *body);
    Ok(())
}

fn decode_send(body: &Bytes) -> bool {
    let Ok(send) = frames::Send::decode(body) else { return false };
    assert_eq!(new_send(&send).to_frame(1)[HEADER_BYTES..], body[..]);
    true
}

fn decode_batch(body: &Bytes) -> bool {
    let Ok(batch) = frames::SendBatch::decode(body) else { return false };
    let records: Vec<_> = batch.records.iter().map(new_send).collect();
    assert_eq!(frames::SendBatch::to_frame(1, &records)[HEADER_BYTES..], body[..]);
    true
}

fn decode_import(body: &Bytes) -> bool {
    let Ok(import) = frames::Import::decode(body) else { return false };
    let records: Vec<_> = import.records.iter().map(|record| (record.time_ms, new_send(&record.send))).collect();
    assert_eq!(frames::Import::to_frame(1, &records)[HEADER_BYTES..], body[..]);
    true
}

fn new_send(send: &frames::Send) -> frames::NewSend<'_> {
    frames::NewSend {
        client_message_id: send.client_message_id,
        dseq: send.dseq,
        kind: send.kind,
        content_type: send.content_type,
        log: &send.log,
        act_as: send.act_as.as_ref(),
        envelope: &send.envelope,
        body: &send.body,
    }
}

fn decode_ack(body: &Bytes) -> bool {
    let Ok(ack) = frames::Ack::decode(body) else { return false };
    // Unknown flags, and bytes behind them, are ignored.
    assert_eq!(ack.to_frame(1)[HEADER_BYTES..][..44], body[..44]);
    assert_eq!(frames::decode_skip(body).map(|(from, _)| from), Ok(ack.position.seq));
    true
}

fn decode_page(body: &Bytes) -> bool {
    let Ok(page) = frames::Page::decode(body) else { return false };
    assert_eq!(page.to_frame(1)[HEADER_BYTES..], body[..]);
    true
}

fn decode_row(body: &Bytes) -> bool {
    let Ok(row) = Row::new(body.clone()) else { return false };
    let parts = [row.sender().len(), row.via().map_or(0, str::len), row.envelope().len(), row.body().len()];
    assert_eq!(antiphon_protocol::row::ROW_HEADER_BYTES + parts.iter().sum::<usize>(), body.len());
    let redacted = Row::new(row.redacted().bytes().clone()).expect("a redacted row is a row");
    assert_eq!((redacted.seq(), redacted.sender(), redacted.via()), (row.seq(), row.sender(), row.via()));
    true
}

/// An envelope that is accepted can be read to its last field.
fn decode_envelope(body: &Bytes) -> bool {
    let kinds = [EventKind::MESSAGE, EventKind::EDIT, EventKind::REDACT, EventKind::REACTION, EventKind::PIN];
    let Some(envelope) = kinds.into_iter().find_map(|kind| Envelope::verify(body, kind).ok()) else { return false };
    let texts = envelope.mentions().map(str::len);
    let texts = texts.chain(envelope.attachments().map(|file| file.url.len()));
    let texts = texts.chain(envelope.properties().map(|property| property.key.len() + property.value.len()));
    // Offsets may share a text; the verifier bounds what that comes to.
    assert!(texts.sum::<usize>() <= 4 * ENVELOPE_BYTES_MAX);
    true
}
