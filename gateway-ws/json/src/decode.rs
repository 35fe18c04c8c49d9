//! A line as a frame.

use antiphon_protocol::{
    ContentType, Direction, ErrorCode, EventKind, FrameType, LogName, UserId,
    frames::{self, Ack, Import, NewSend, Page, SendBatch, imported_id},
    header::HEADER_BYTES,
    limits::FRAME_BYTES_MAX,
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    content,
    encode::{IdName, id_name},
    error::JsonError,
    message, row,
    schema::{self, BodyForm, HasEnvelope},
    valid,
    value::{Members, Value},
};

/// Longest line from a broker: what names and escapes make of the longest frame.
const BROKER_LINE_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

/// What a PAGE has before its rows.
const PAGE_HEAD_BYTES: usize = 32;

/// Longest `external_id`, in bytes.
const EXTERNAL_ID_BYTES_MAX: usize = 255;

/// A frame that was read from a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Its type.
    pub frame_type: FrameType,
    /// The header's id: of the request, or the handle or class.
    pub id: u32,
    /// For an OK with a body: the request that it answers.
    pub answers: Option<FrameType>,
    /// The whole binary frame, header included.
    pub frame: Bytes,
}

impl Decoded {
    /// The frame without its header.
    pub fn body(&self) -> Bytes {
        // Invariant: every frame begins with a header.
        self.frame.slice(HEADER_BYTES..)
    }
}

/// Reads a line, without its end, that comes from the side of `from`.
///
/// # Errors
///
/// `malformed`, `unknown_fields` and `invalid_field` as section 13 says; `unknown_frame` and `unexpected_frame` for what
/// `op` cannot be; `frame_too_large`; `limit_exceeded` for what does not fit its field in the binary frame. Everything
/// else that a request can do wrong is left for the broker to find.
pub fn decode(line: &[u8], from: Direction) -> Result<Decoded, JsonError> {
    let bytes_max = match from {
        Direction::ToBroker => FRAME_BYTES_MAX,
        Direction::ToClient => BROKER_LINE_BYTES_MAX,
    };
    if line.len() > bytes_max {
        return Err(JsonError::new(ErrorCode::FrameTooLarge, "is longer than a line may be"));
    }
    let line = std::str::from_utf8(line).map_err(|_| JsonError::malformed("is not UTF-8"))?;
    if let Err(fault) = valid::check(line, valid::LINE_DEPTH_MAX) {
        return Err(fault_error(line, fault, from));
    }
    let mut members = Value::new(line).members()?;
    let (frame_type, id) = read_head(&mut members, from)?;
    read_frame(frame_type, id, members).map_err(|error| error.of(Some((frame_type, id))))
}

/// The error of a line that is not JSON as it has to be. A member twice or half a character spoils its own request only,
/// so the request is looked for; where there is no telling what the line is, it is not.
fn fault_error(line: &str, fault: valid::Fault, from: Direction) -> JsonError {
    // What the application has inside `data` and `properties` are no members of the protocol.
    let own =
        fault.path.iter().position(|name| name == "data" || name == "properties").map_or(fault.path.len(), |at| at + 1);
    let error = fault.path[..own].iter().rev().fold(JsonError::malformed(fault.what), |error, name| error.within(name));
    let head = fault.is_json.then(|| read_head(&mut Value::new(line).members().ok()?, from).ok()).flatten();
    error.of(head)
}

/// Takes `op`, and the id by its name.
fn read_head(members: &mut Members<'_>, from: Direction) -> Result<(FrameType, u32), JsonError> {
    let name = members.required("op", Value::text)?;
    let unless = |code, message| JsonError::new(code, message).within("op");
    let frame_type = FrameType::from_name(&name).ok_or_else(|| unless(ErrorCode::UnknownFrame, "is not known"))?;
    if frame_type.direction() != from || schema::body_of(frame_type) == BodyForm::Trunk {
        return Err(unless(ErrorCode::UnexpectedFrame, "does not come from this side"));
    }
    let id = match id_name(frame_type) {
        IdName::Id => members.optional("id", Value::u32)?.unwrap_or_default(),
        IdName::Handle => members.required("handle", Value::u32)?,
        IdName::Class => members.required("class", Value::u32)?,
    };
    Ok((frame_type, id))
}

fn read_frame(frame_type: FrameType, id: u32, mut members: Members<'_>) -> Result<Decoded, JsonError> {
    let mut answers = None;
    let frame = match frame_type {
        FrameType::Send => {
            let client_message_id = members.required("client_message_id", Value::uuid)?;
            let record = Record::read(&mut members, client_message_id)?;
            fitting(record.new_send().encoded_len())?;
            record.new_send().to_frame(id)
        }
        FrameType::SendBatch => members.required("records", |value| read_batch(value, id))?,
        FrameType::Import => members.required("records", |value| read_import(value, id))?,
        FrameType::Ack => read_ack(&mut members)?.to_frame(id),
        FrameType::Event => frames::event(id, &row::read_members(&mut members)?),
        FrameType::Page => {
            let page = read_page(&mut members)?;
            fitting(PAGE_HEAD_BYTES + page.rows.iter().map(|row| row.bytes().len()).sum::<usize>())?;
            page.to_frame(id)
        }
        FrameType::Skip => {
            frames::skip(id, members.required("from", Value::counter)?, members.required("to", Value::counter)?)
        }
        FrameType::Ok => {
            let body;
            (answers, body) = read_ok(&mut members)?;
            raw(frame_type, id, &body)?
        }
        _ => raw(frame_type, id, &read_message(frame_type, id, &mut members)?)?,
    };
    members.finish()?;
    Ok(Decoded { frame_type, id, answers, frame })
}

/// A frame, unless it would be longer than one may be.
fn raw(frame_type: FrameType, id: u32, body: &[u8]) -> Result<Bytes, JsonError> {
    fitting(body.len())?;
    Ok(frames::raw(frame_type, id, body))
}

fn fitting(body_len: usize) -> Result<(), JsonError> {
    match body_len + HEADER_BYTES > FRAME_BYTES_MAX {
        true => Err(JsonError::new(ErrorCode::FrameTooLarge, "is longer than a frame may be")),
        false => Ok(()),
    }
}

fn read_message(frame_type: FrameType, id: u32, members: &mut Members<'_>) -> Result<Vec<u8>, JsonError> {
    let mut body = Vec::new();
    if let BodyForm::Message(name) = schema::body_of(frame_type)
        && let Some(schema) = schema::message(name)
    {
        message::read_members(members, schema, Some(id), &mut body)?;
    }
    Ok(body)
}

fn read_ok(members: &mut Members<'_>) -> Result<(Option<FrameType>, Vec<u8>), JsonError> {
    let Some(name) = members.optional("to", Value::text)? else { return Ok((None, Vec::new())) };
    let request = FrameType::from_name(&name);
    let answer = request.and_then(schema::answer_of);
    let schema = answer.ok_or_else(|| JsonError::invalid("is not a request whose OK has a body").within("to"))?;
    let mut body = Vec::new();
    message::read_members(members, schema, None, &mut body)?;
    Ok((request, body))
}

fn read_ack(members: &mut Members<'_>) -> Result<Ack, JsonError> {
    Ok(Ack {
        position: members.required("position", message::read_position_text)?,
        msgno: members.required("msgno", Value::counter)?,
        time_ms: members.required("time_ms", Value::counter)?,
        event_id: members.required("event_id", Value::uuid)?,
        duplicate: members.flag("duplicate")?,
    })
}

fn read_page(members: &mut Members<'_>) -> Result<Page, JsonError> {
    Ok(Page {
        next: members.required("next", Value::counter)?,
        head: members.required("head", Value::counter)?,
        floor: members.required("floor", Value::counter)?,
        epoch: members.required("epoch", Value::u32)?,
        rows: members.required("rows", |value| value.items()?.map(row::read_object).collect())?,
    })
}

/// What is in a SEND.
#[derive(Debug)]
struct Record<'a> {
    client_message_id: Uuid,
    dseq: u64,
    kind: EventKind,
    content_type: ContentType,
    log: LogName,
    act_as: Option<UserId>,
    content: content::ReadContent<'a>,
}

impl<'a> Record<'a> {
    fn read(members: &mut Members<'a>, client_message_id: Uuid) -> Result<Self, JsonError> {
        let kind = members.optional("kind", row::read_kind)?.unwrap_or(EventKind::MESSAGE);
        let content = content::read(members, kind, HasEnvelope(true))?;
        Ok(Self {
            client_message_id,
            dseq: members.optional("dseq", Value::counter)?.unwrap_or_default(),
            kind,
            content_type: row::content_type(content.content_type)?,
            log: members.required("log", Value::id)?,
            act_as: members.optional("act_as", Value::id)?,
            content,
        })
    }

    fn new_send(&self) -> NewSend<'_> {
        NewSend {
            client_message_id: self.client_message_id,
            dseq: self.dseq,
            kind: self.kind,
            content_type: self.content_type,
            log: &self.log,
            act_as: self.act_as.as_ref(),
            envelope: &self.content.envelope,
            body: &self.content.body,
        }
    }
}

fn read_batch(value: Value<'_>, id: u32) -> Result<Bytes, JsonError> {
    let records: Vec<Record<'_>> = value.items()?.map(read_record).collect::<Result<_, JsonError>>()?;
    let records: Vec<NewSend<'_>> = records.iter().map(Record::new_send).collect();
    fitting(records.iter().map(|record| size_of::<u32>() + record.encoded_len()).sum())?;
    Ok(SendBatch::to_frame(id, &records))
}

fn read_record(value: Value<'_>) -> Result<Record<'_>, JsonError> {
    let mut members = value.members()?;
    let client_message_id = members.required("client_message_id", Value::uuid)?;
    let record = Record::read(&mut members, client_message_id)?;
    members.finish()?;
    Ok(record)
}

fn read_import(value: Value<'_>, id: u32) -> Result<Bytes, JsonError> {
    let records: Vec<(u64, Record<'_>)> = value.items()?.map(read_import_record).collect::<Result<_, JsonError>>()?;
    let records: Vec<(u64, NewSend<'_>)> = records.iter().map(|(ms, record)| (*ms, record.new_send())).collect();
    fitting(records.iter().map(|(_, send)| Import::record_len(send)).sum())?;
    Ok(Import::to_frame(id, &records))
}

/// A record has an id, or says how the other system calls it.
fn read_import_record(value: Value<'_>) -> Result<(u64, Record<'_>), JsonError> {
    let mut members = value.members()?;
    let client_message_id = match members.optional("external_id", Value::text)? {
        Some(id) if id.is_empty() || id.len() > EXTERNAL_ID_BYTES_MAX => {
            return Err(JsonError::invalid("has 1 to 255 bytes").within("external_id"));
        }
        Some(external_id) => imported_id(&external_id),
        None => members.required("client_message_id", Value::uuid)?,
    };
    let time_ms = members.required("time_ms", Value::counter)?;
    let record = Record::read(&mut members, client_message_id)?;
    members.finish()?;
    Ok((time_ms, record))
}
