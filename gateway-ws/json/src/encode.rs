//! A frame as one line.

use antiphon_protocol::{
    EventKind, FrameType, RawFrame, Row,
    frames::{self, Ack, Import, Page, Send, SendBatch},
};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    content::{self, Content},
    error::EncodeError,
    message, row,
    schema::{self, BodyForm},
    write::{self, Object},
};

/// Appends the JSON form of `frame` to `out`: one line, without its end.
///
/// `answers` is for OK: the request that it answers, which says what its body is. Fields of a later version are left out.
///
/// # Errors
///
/// The body cannot be read, or holds what JSON cannot say, or the frame is one of trunks. `out` is then as it was.
pub fn encode(frame: &RawFrame, answers: Option<FrameType>, out: &mut BytesMut) -> Result<(), EncodeError> {
    let length = out.len();
    let written = write_frame(frame, answers, out);
    if written.is_err() {
        out.truncate(length);
    }
    written
}

fn write_frame(frame: &RawFrame, answers: Option<FrameType>, out: &mut BytesMut) -> Result<(), EncodeError> {
    let RawFrame { frame_type, id, body } = frame;
    let mut object = begin(out, *frame_type, *id);
    match frame_type {
        FrameType::Event => row::write_members(&mut object, &whole_row(body)?)?,
        FrameType::Ack => write_ack(&mut object, &Ack::decode(body)?)?,
        FrameType::Page => write_page(&mut object, body)?,
        FrameType::Skip => {
            let (from, to) = frames::decode_skip(body)?;
            row::write_counter(&mut object, "from", from)?;
            row::write_counter(&mut object, "to", to)?;
        }
        FrameType::Send => write_send(&mut object, &Send::decode(body)?)?,
        FrameType::SendBatch => write_batch(&mut object, &SendBatch::decode(body)?)?,
        FrameType::Import => write_import(&mut object, &Import::decode(body)?)?,
        FrameType::Ok => write_ok(&mut object, answers, body)?,
        frame_type => match schema::body_of(*frame_type) {
            BodyForm::Message(name) => {
                let schema = schema::message(name).ok_or(EncodeError::NoForm(*frame_type))?;
                message::write_members(&mut object, schema, body, Some(*id))?;
            }
            BodyForm::Special => {}
            BodyForm::Trunk => return Err(EncodeError::NoForm(*frame_type)),
        },
    }
    object.end();
    Ok(())
}

/// What the id of a frame's header is called in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdName {
    /// Left out if 0.
    Id,
    Handle,
    Class,
}

pub(super) fn id_name(frame_type: FrameType) -> IdName {
    use FrameType::{Behind, Cursors, Detach, Event, Open, Signaled, Skip};
    match frame_type {
        Event | Skip | Behind | Detach | Cursors | Signaled => IdName::Handle,
        Open => IdName::Class,
        _ => IdName::Id,
    }
}

fn begin(out: &mut BytesMut, frame_type: FrameType, id: u32) -> Object<'_> {
    let mut object = Object::begin(out);
    let name = object.key("op");
    name.put_u8(b'"');
    name.put_slice(frame_type.name().as_bytes());
    name.put_u8(b'"');
    match id_name(frame_type) {
        IdName::Id if id == 0 => {}
        IdName::Id => object.number("id", id.into()),
        IdName::Handle => object.number("handle", id.into()),
        IdName::Class => object.number("class", id.into()),
    }
    object
}

fn whole_row(body: &Bytes) -> Result<Row, EncodeError> {
    Row::new(body.clone()).map_err(|_| EncodeError::field("row"))
}

fn write_ack(object: &mut Object<'_>, ack: &Ack) -> Result<(), EncodeError> {
    if ack.position.seq > antiphon_protocol::limits::COUNTER_MAX {
        return Err(EncodeError::field("position"));
    }
    message::write_position(object.key("position"), ack.position);
    row::write_counter(object, "msgno", ack.msgno)?;
    row::write_counter(object, "time_ms", ack.time_ms)?;
    object.uuid("event_id", ack.event_id);
    object.flag("duplicate", ack.duplicate);
    Ok(())
}

fn write_page(object: &mut Object<'_>, body: &Bytes) -> Result<(), EncodeError> {
    let (page, count, mut rest) = Page::decode_head(body)?;
    for (name, number) in [("next", page.next), ("head", page.head), ("floor", page.floor)] {
        row::write_counter(object, name, number)?;
    }
    object.number("epoch", page.epoch.into());
    write::list(object.key("rows"), 0..count, |out, _| {
        let row = Row::split_first(&mut rest).map_err(|_| EncodeError::field("rows"))?;
        row::write_object(out, &row)
    })?;
    if rest.is_empty() { Ok(()) } else { Err(EncodeError::field("rows")) }
}

fn write_send(object: &mut Object<'_>, send: &Send) -> Result<(), EncodeError> {
    object.text("log", &send.log.to_string());
    object.uuid("client_message_id", send.client_message_id);
    if send.dseq > 0 {
        row::write_counter(object, "dseq", send.dseq)?;
    }
    if send.kind != EventKind::MESSAGE {
        row::write_kind(object, send.kind);
    }
    if let Some(user) = &send.act_as {
        object.text("act_as", user.as_str());
    }
    let content_type = send.content_type as u32;
    content::write(object, &Content { kind: send.kind, content_type, envelope: &send.envelope, body: &send.body })
}

fn write_batch(object: &mut Object<'_>, batch: &SendBatch) -> Result<(), EncodeError> {
    write::list(object.key("records"), batch.records.iter(), |out, record| {
        let mut object = Object::begin(out);
        write_send(&mut object, record)?;
        object.end();
        Ok(())
    })
}

fn write_import(object: &mut Object<'_>, import: &Import) -> Result<(), EncodeError> {
    write::list(object.key("records"), import.records.iter(), |out, record| {
        let mut object = Object::begin(out);
        row::write_counter(&mut object, "time_ms", record.time_ms)?;
        write_send(&mut object, &record.send)?;
        object.end();
        Ok(())
    })
}

fn write_ok(object: &mut Object<'_>, answers: Option<FrameType>, body: &Bytes) -> Result<(), EncodeError> {
    match answers.and_then(|request| Some((request, schema::answer_of(request)?))) {
        Some((request, schema)) => {
            object.text("to", request.name());
            message::write_members(object, schema, body, None)
        }
        None if body.is_empty() => Ok(()),
        None => Err(EncodeError::UnknownAnswer),
    }
}
