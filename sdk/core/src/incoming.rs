//! What the broker says: bytes of its streams -> frames -> the part of the client that they concern.

use antiphon_protocol::{
    Action, FrameType, LogName, Position, RawFrame, Row,
    control::{self, attach::Reset, detach::Reason},
    frames::{self, Ack, Page},
};
use bytes::Bytes;

use crate::{
    client::Client,
    error::Refusal,
    event,
    inbox::LastMessage,
    input::StreamId,
    link::Pending,
    message::Messages,
    output::{Answer, Cursor, DetachReason, Digest, Output, Signal},
    receipts::Reached,
    sends::{Acked, Verdict},
    subscriptions::FromLog,
};

/// What the broker did against the protocol, for people.
type Fault = String;

impl Client {
    // ---- the control stream ----

    pub(crate) fn control(&mut self, bytes: Bytes) {
        self.control.push(bytes);
        while self.connection.is_up() {
            let handled = match self.control.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => self.control_frame(frame),
                Err(error) => Err(error.to_string()),
            };
            if let Err(fault) = handled {
                self.broken(fault);
            }
        }
    }

    fn control_frame(&mut self, frame: RawFrame) -> Result<(), Fault> {
        match frame.frame_type {
            FrameType::Welcome => {
                self.link.answered(frame.id);
                let step = self.connection.welcome(&mut self.link, answer(&frame)?);
                self.follow(step);
            }
            FrameType::Resume => {
                let step = self.connection.resume(&mut self.link, &answer(&frame)?);
                self.follow(step);
            }
            FrameType::Goaway => self.connection.goaway(&mut self.link, &answer(&frame)?),
            FrameType::Error => self.error(frame.id, Refusal::from(answer::<control::Error>(&frame)?)),
            FrameType::Ok | FrameType::Ack | FrameType::BatchAck => self.answered(frame)?,
            other => return Err(format!("{} came on the control stream", other.name())),
        }
        Ok(())
    }

    fn answered(&mut self, frame: RawFrame) -> Result<(), Fault> {
        let Some(pending) = self.link.answered(frame.id) else { return Ok(()) };
        let link = &mut self.link;
        match (pending, frame.frame_type) {
            (Pending::Send(log), FrameType::Ack) => {
                let ack = Ack::decode(&frame.body).map_err(|error| error.to_string())?;
                let acked = self.outbox.acked(link, &log, frame.id, &ack);
                self.sent(&log, acked);
            }
            (Pending::Send(log), FrameType::BatchAck) => return self.batch_acked(&log, frame.id, answer(&frame)?),
            (Pending::Authenticate, FrameType::Ok) => self.connection.authenticated(link, answer(&frame)?),
            (Pending::Request(id), frame_type) => {
                self.requests.answered(link, id, Answer { frame_type, body: frame.body });
            }
            (Pending::Presence, FrameType::Ok) => self.watch.answered(link),
            (Pending::Bye, _) => {
                let step = self.connection.said_bye(link);
                self.follow(step);
            }
            (Pending::Unsubscribe | Pending::Cursor(_), FrameType::Ok) => {}
            (pending, frame_type) => return Err(format!("{} does not answer {pending:?}", frame_type.name())),
        }
        Ok(())
    }

    /// One result per message, in order.
    fn batch_acked(&mut self, log: &LogName, request: u32, ack: control::BatchAck) -> Result<(), Fault> {
        let (written, results) = (self.outbox.written(log, request), ack.results.len());
        if written != results {
            return Err(format!("a batch of {written} messages has {results} results"));
        }
        for result in ack.results {
            let link = &mut self.link;
            match result.error {
                Some(error) => {
                    let refusal = Refusal::from(error);
                    if refusal.action() == Action::Authenticate {
                        self.connection.token_refused(link, refusal.clone());
                    }
                    if self.outbox.refused(link, log, request, refusal) == Verdict::Reconnect {
                        return Err(format!("the broker keeps refusing the oldest message to {log} as out of order"));
                    }
                }
                None => {
                    let ack = ack_of(&result)?;
                    let acked = self.outbox.acked(link, log, request, &ack);
                    self.sent(log, acked);
                }
            }
        }
        Ok(())
    }

    fn sent(&mut self, log: &LogName, acked: Option<Acked>) {
        let Some(Acked { id, at, has_read }) = acked else { return };
        if has_read {
            self.cursors.note(log, at.seq, at.seq);
        }
        self.receipts.sent(&mut self.link, id, log, at);
    }

    fn error(&mut self, id: u32, refusal: Refusal) {
        let pending = self.link.answered(id);
        let link = &mut self.link;
        if id == 0 || pending == Some(Pending::Hello) {
            let step = self.connection.error(link, refusal);
            return self.follow(step);
        }
        let Some(pending) = pending else { return };
        let authenticate = refusal.action() == Action::Authenticate;
        if authenticate && pending != Pending::Authenticate {
            self.connection.token_refused(link, refusal.clone());
        }
        self.request_refused(pending, id, refusal);
    }

    fn request_refused(&mut self, pending: Pending, request: u32, refusal: Refusal) {
        let link = &mut self.link;
        match pending {
            Pending::Authenticate => self.connection.authentication_refused(link, refusal),
            Pending::Subscribe(id, log) => {
                self.subscriptions.refused(link, &mut self.pages, (id, log), refusal);
            }
            Pending::Page => {
                if let Some(pulled) = self.pages.refused(link, request, refusal) {
                    self.subscriptions.pulled(link, &mut self.pages, pulled);
                }
            }
            Pending::Cursor(log) => self.cursors.refused(link, &log, &refusal),
            Pending::Send(log) => {
                if self.outbox.refused_all(link, &log, request, &refusal) == Verdict::Reconnect {
                    self.broken(format!("the broker keeps refusing the oldest message to {log} as out of order"));
                }
            }
            Pending::Request(id) => self.requests.refused(link, id, refusal),
            Pending::Presence => self.watch.refused(link, refusal),
            Pending::Bye => {
                let step = self.connection.said_bye(link);
                self.follow(step);
            }
            // A handle that the broker does not know (any more) is as good as unsubscribed.
            Pending::Unsubscribe | Pending::Hello => {}
        }
    }

    // ---- the broker's streams ----

    pub(crate) fn stream(&mut self, stream: StreamId, bytes: Bytes) {
        if !self.connection.is_up() {
            return;
        }
        if let Err(fault) = self.streams.push(stream, bytes) {
            return self.broken(fault);
        }
        while self.connection.is_up() {
            let handled = match self.streams.next_frame(stream) {
                Ok(None) => return,
                Ok(Some(frame)) => self.stream_frame(frame),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = handled {
                self.broken(fault);
            }
        }
    }

    fn stream_frame(&mut self, frame: RawFrame) -> Result<(), Fault> {
        match frame.frame_type {
            FrameType::Attach => self.attach(&frame)?,
            FrameType::Event => {
                let row = Row::new(frame.body).map_err(|error| error.to_string())?;
                if event::moves_cursor(&row) {
                    self.cursor(frame.id, row.sender(), row.seq(), row.seq());
                }
                self.log_frame(frame.id, FromLog::Event(row));
            }
            FrameType::Skip => {
                let (first, last) = frames::decode_skip(&frame.body).map_err(|error| error.to_string())?;
                self.log_frame(frame.id, FromLog::Skip { first, last });
            }
            FrameType::Behind => self.log_frame(frame.id, FromLog::Behind),
            FrameType::Detach => self.detach(&frame)?,
            FrameType::Page => {
                let page = Page::decode(&frame.body).map_err(|error| error.to_string())?;
                self.link.answered(frame.id);
                if let Some(pulled) = self.pages.answered(&mut self.link, frame.id, page) {
                    self.subscriptions.pulled(&mut self.link, &mut self.pages, pulled);
                }
            }
            FrameType::MessagesPage => {
                let page = Messages::from_wire(answer(&frame)?).ok_or("a page holds a message that cannot be read")?;
                self.link.answered(frame.id);
                self.pages.messages_answered(&mut self.link, frame.id, page);
            }
            FrameType::Cursors => {
                let cursor = Cursor::from_wire(&answer(&frame)?);
                self.cursor(frame.id, &cursor.user, cursor.delivered, cursor.read);
                self.log_frame(frame.id, FromLog::Cursor(cursor));
            }
            FrameType::Signaled => {
                let control::Signaled { handle, user, kind, data, ttl_ms } = answer(&frame)?;
                self.log_frame(handle, FromLog::Signal(Signal { user, kind, data, ttl_ms }));
            }
            FrameType::Head => self.digest(answer(&frame)?),
            FrameType::Presence => self.watch.told(&mut self.link, answer(&frame)?),
            // Of later versions, or not asked for: nothing of this client depends on it.
            _ => {}
        }
        Ok(())
    }

    fn log_frame(&mut self, handle: u32, frame: FromLog) {
        self.subscriptions.frame(&mut self.link, &mut self.pages, handle, frame);
    }

    fn attach(&mut self, frame: &RawFrame) -> Result<(), Fault> {
        let attach: control::Attach = answer(frame)?;
        let (id, log) = match self.link.answered(frame.id) {
            Some(Pending::Subscribe(id, log)) => (id, log),
            None if self.link.is_late(frame.id) => return Ok(()),
            _ => return Err("ATTACH answers no SUBSCRIBE".into()),
        };
        self.subscriptions.attach(&mut self.link, &mut self.pages, (id, log.clone()), &attach);
        if attach.reset() == Reset::EpochChanged {
            self.cursors.forget(&mut self.link, &log);
        }
        for cursor in &attach.cursors {
            self.cursor(attach.handle, &cursor.user, cursor.delivered, cursor.read);
        }
        self.cursors.attached(&mut self.link, &log);
        Ok(())
    }

    fn detach(&mut self, frame: &RawFrame) -> Result<(), Fault> {
        let detach: control::Detach = answer(frame)?;
        let last = detach.seq;
        match detach.reason() {
            // The answer to an UNSUBSCRIBE, whose handle has been forgotten or is attached anew.
            Reason::Unsubscribed => {}
            Reason::Removed => self.log_frame(frame.id, FromLog::Detach(DetachReason::Removed { last })),
            Reason::Deleted => self.log_frame(frame.id, FromLog::Detach(DetachReason::Deleted { last })),
        }
        Ok(())
    }

    /// Somebody has come this far in the log with this handle: the user, by this or another device, or somebody else.
    fn cursor(&mut self, handle: u32, user: &str, delivered: u64, read: u64) {
        let Some((log, epoch)) = self.subscriptions.followed(handle) else { return };
        if user == self.connection.user() {
            self.cursors.note(log, delivered, read);
        } else {
            self.receipts.reached(&mut self.link, log, Reached { epoch, delivered, read });
        }
    }

    fn digest(&mut self, head: control::Head) {
        // A log that this version cannot name is none that it follows.
        if let Ok(log) = head.log.parse() {
            let position = Position { epoch: head.epoch, seq: head.seq };
            let last = head.last.map(LastMessage::from_wire);
            let digest = Digest { log, head: position, head_msgno: head.msgno, last };
            self.link.emit(Output::Digest(digest));
        }
    }
}

/// A result of a batch as the ACK of a single send.
fn ack_of(result: &control::BatchResult) -> Result<Ack, Fault> {
    let position = result.position.ok_or("a result of a batch is neither ACK nor ERROR")?;
    let event_id = result.event_id[..].try_into().map_err(|_| "a result of a batch has no event id")?;
    Ok(Ack {
        position: Position { epoch: position.epoch, seq: position.seq },
        msgno: result.msgno,
        time_ms: result.time_ms,
        event_id: uuid::Uuid::from_bytes(event_id),
        duplicate: result.duplicate,
    })
}

fn answer<M: Default + prost::Message>(frame: &RawFrame) -> Result<M, Fault> {
    frames::decode_answer(&frame.body).map_err(|error| format!("{}: {error}", frame.frame_type.name()))
}
