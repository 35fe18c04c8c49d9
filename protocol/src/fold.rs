//! What later events make of a message: the fold by which the broker keeps its state and a client keeps a page current.
//!
//! ```text
//! page as of head H, then every event above H, in order   ==   page as of a later head
//! ```
//!
//! Pure, and the same in every language: `vectors/fold.json` holds each of them to it. An event that changed nothing (a
//! reaction that was there) is marked by the log's owner, who alone knows all users, so that whoever folds only counts.
//! An event at or below the state's `through` is in it already and changes nothing, so events may be folded again.

use bytes::Bytes;

use crate::{
    control::{LatestEdit, Mark, MessageState, MessageView, Reactions, ReplyPreview},
    envelope::Envelope,
    limits::{REACTION_USERS_SHOWN_MAX, REPLY_PREVIEW_BYTES_MAX},
    row::{ContentType, EventKind, Row},
};

/// Position of the message that an edit, redaction, reaction or pin is about; `None` for other events, and for an edit
/// that was emptied because its message was redacted later.
pub fn target(event: &Row) -> Option<u64> {
    relation(event).map(|relation| relation.seq)
}

/// Folds one event about a message into the message's state. Returns whether it changed anything.
///
/// `event` must be about this message; `reader` decides what is `mine`, and nobody's is with an empty one.
pub fn event(state: &mut MessageState, event: &Row, reader: &str) -> bool {
    let Some(relation) = relation(event) else { return false };
    // Nothing follows a redaction, and what is marked has no effect.
    if event.seq() <= state.through || event.is_unchanged() || state.redacted.is_some() {
        return false;
    }
    state.through = event.seq();
    match event.kind() {
        EventKind::EDIT => edit(state, event),
        EventKind::REDACT => {
            *state = MessageState { through: state.through, redacted: Some(mark(event)), ..MessageState::default() };
        }
        EventKind::REACTION if relation.remove => take_back(state, &relation.key, event.sender(), reader),
        EventKind::REACTION => react(state, &relation.key, event.sender(), reader),
        _ => state.pinned = (!relation.remove).then(|| mark(event)),
    }
    true
}

/// Folds one event of the log into a message as a reader sees it, whatever the event is about.
pub fn view(view: &mut MessageView, event: &Row, reader: &str) {
    let (Ok(row), Some(target)) = (Row::new(view.row.clone()), target(event)) else { return };
    if target == row.seq() {
        let mut state = view.state.take().unwrap_or_default();
        self::event(&mut state, event, reader);
        view.state = (state != MessageState::default()).then_some(state);
        if event.kind() == EventKind::REDACT && !row.is_redacted() {
            view.row = row.redacted().bytes().clone();
            view.reply = None;
        }
    }
    if let Some(reply) = view.reply.as_mut().filter(|reply| reply.seq == target) {
        fold_preview(reply, event);
    }
}

/// Folds one event into messages in the order of the log: a message is added, anything else changes what is there.
///
/// A reply to a message that is not among `messages` gets no preview.
pub fn page(messages: &mut Vec<MessageView>, event: &Row, reader: &str) {
    if event.kind() != EventKind::MESSAGE {
        return messages.iter_mut().for_each(|message| view(message, event, reader));
    }
    let answered = reply_to(event).and_then(|(seq, event_id)| {
        let rows = messages.iter().filter_map(|view| Some((Row::new(view.row.clone()).ok()?, view)));
        let (row, view) = { rows }.find(|(row, _)| row.seq() == seq && row.event_id() == event_id)?;
        Some(preview(&row, view.state.as_ref()))
    });
    messages.push(MessageView { row: event.bytes().clone(), state: None, reply: answered });
}

/// Position and id of the message that `row` answers.
pub fn reply_to(row: &Row) -> Option<(u64, uuid::Uuid)> {
    let envelope = row.envelope();
    let reply = Envelope::trusted(&envelope).ok()?.reply_to()?;
    Some((reply.seq, reply.event_id))
}

/// The beginning of a message as it stands, for those that answer it.
pub fn preview(row: &Row, state: Option<&MessageState>) -> ReplyPreview {
    let mut preview = ReplyPreview {
        seq: row.seq(),
        event_id: Bytes::copy_from_slice(row.event_id().as_bytes()),
        sender: row.sender().to_owned(),
        redacted: row.is_redacted() || state.is_some_and(|state| state.redacted.is_some()),
        ..ReplyPreview::default()
    };
    // Nothing changes a redacted message any more, so its preview says nothing else.
    if !preview.redacted {
        preview.through = state.map_or(0, |state| state.through);
        match state.and_then(|state| state.edit.as_ref()) {
            Some(edit) => show(&mut preview, edit.content_type, &edit.body),
            None => show(&mut preview, row.content_type() as u32, &row.body()),
        }
    }
    preview
}

fn fold_preview(preview: &mut ReplyPreview, event: &Row) {
    if event.seq() <= preview.through || event.is_unchanged() || preview.redacted {
        return;
    }
    preview.through = event.seq();
    match event.kind() {
        EventKind::EDIT => show(preview, event.content_type() as u32, &event.body()),
        EventKind::REDACT => {
            show(preview, 0, &Bytes::new());
            (preview.redacted, preview.through) = (true, 0);
        }
        _ => {}
    }
}

/// Puts the beginning of a body into the preview.
fn show(preview: &mut ReplyPreview, content_type: u32, body: &Bytes) {
    let mut end = body.len().min(REPLY_PREVIEW_BYTES_MAX);
    if content_type == ContentType::Text as u32 {
        // A byte that continues a character begins with the bits 10.
        while end > 0 && end < body.len() && body[end] & 0xc0 == 0x80 {
            end -= 1;
        }
    }
    preview.content_type = content_type;
    preview.body = Bytes::copy_from_slice(&body[..end]);
    preview.cut = end < body.len();
}

struct Related {
    seq: u64,
    key: String,
    remove: bool,
}

fn relation(event: &Row) -> Option<Related> {
    if !(EventKind::EDIT..=EventKind::PIN).contains(&event.kind()) {
        return None;
    }
    let envelope = event.envelope();
    let relation = Envelope::trusted(&envelope).ok()?.relates_to()?;
    let key = relation.key.unwrap_or_default().to_owned();
    Some(Related { seq: relation.target.seq, key, remove: relation.remove })
}

fn mark(event: &Row) -> Mark {
    Mark { seq: event.seq(), time_ms: event.time_ms(), user: event.sender().to_owned() }
}

fn edit(state: &mut MessageState, event: &Row) {
    state.edits.push(event.seq());
    state.edit = Some(LatestEdit {
        seq: event.seq(),
        time_ms: event.time_ms(),
        content_type: event.content_type() as u32,
        envelope: event.envelope(),
        body: event.body(),
    });
}

fn react(state: &mut MessageState, key: &str, user: &str, reader: &str) {
    let index = state.reactions.iter().position(|reactions| reactions.key == key).unwrap_or_else(|| {
        state.reactions.push(Reactions { key: key.to_owned(), ..Reactions::default() });
        state.reactions.len() - 1
    });
    let reactions = &mut state.reactions[index];
    reactions.count = reactions.count.saturating_add(1);
    reactions.mine |= user == reader;
    if reactions.users.len() < REACTION_USERS_SHOWN_MAX {
        reactions.users.push(user.to_owned());
    }
}

fn take_back(state: &mut MessageState, key: &str, user: &str, reader: &str) {
    let Some(index) = state.reactions.iter().position(|reactions| reactions.key == key) else { return };
    let reactions = &mut state.reactions[index];
    reactions.count = reactions.count.saturating_sub(1);
    reactions.mine &= user != reader;
    reactions.users.retain(|other| other != user);
    if reactions.count == 0 {
        state.reactions.remove(index);
    }
}
