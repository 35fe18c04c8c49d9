//! CURSOR and SIGNAL at the log's owner: state that goes to the log's live readers.

use antiphon_protocol::{
    ErrorCode, FrameType, UserId, control, frames,
    limits::{RECEIPTS_MEMBERS_MAX, SIGNAL_BYTES_MAX},
};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};
use bytes::Bytes;

use super::{
    Contents, Log, Purpose, State, answer,
    cursors::{Cursor, to_control},
};
use crate::{
    effects::Effects,
    limits::SIGNAL_TTL,
    refusal::Refusal,
    shard_message::{Operation, Request, ShardMessage},
};

impl Log {
    pub(super) fn move_cursor(&mut self, fx: &mut Effects, request: Box<Request>) {
        let Operation::Cursor(wanted) = &request.operation else { return };
        let (read, delivered) = (wanted.read, wanted.delivered);
        let found = self.cursor_owner(&request, &wanted.act_as);
        let (user, contents) = match found {
            Ok(found) => found,
            Err(refusal) => return self.refuse(fx, &request, &refusal),
        };
        if let Some((field, _)) =
            [("read", read), ("delivered", delivered)].into_iter().find(|(_, seq)| *seq > contents.head)
        {
            let refusal = Refusal::field(ErrorCode::InvalidField, field, "nobody has got beyond the head");
            return self.refuse(fx, &request, &refusal);
        }
        let read_msgno = match contents.tail.get(read) {
            Some(row) => Some(row.msgno()),
            None if read == contents.head => Some(contents.head_msgno),
            // Nothing new was read.
            None if read <= contents.cursors.get(&user).read => Some(0),
            // What is gone cannot be read any more, so nothing before the floor counts as unread.
            None if read < contents.floor() => Some(contents.retention.msgno_below()),
            None => None,
        };
        match read_msgno {
            Some(read_msgno) => self.set_cursor(fx, &request, &user, Cursor { delivered, read, read_msgno }),
            None => {
                let range =
                    ReadRows { from: read, to: read + 1, direction: Direction::Forward, rows_max: 1, bytes_max: 0 };
                fx.store(Op::Read { log: self.key, range }, Purpose::FindCursor(request));
            }
        }
    }

    pub(super) fn cursor_found(&mut self, fx: &mut Effects, request: &Request, result: Result<Outcome, StoreError>) {
        let Operation::Cursor(wanted) = &request.operation else { return };
        let read_msgno = match (result, &self.state) {
            (Ok(Outcome::Rows(rows)), State::Ready(contents)) => match rows.first() {
                Some(row) => row.msgno(),
                // It has gone since.
                None => contents.retention.msgno_below(),
            },
            (Ok(_), _) => 0,
            (Err(error), _) => {
                let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
                return self.refuse(fx, request, &refusal);
            }
        };
        let cursor = Cursor { delivered: wanted.delivered, read: wanted.read, read_msgno };
        match request.actor.acting_user(&wanted.act_as) {
            Ok(user) => self.set_cursor(fx, request, &user, cursor),
            Err(refusal) => self.refuse(fx, request, &refusal),
        }
    }

    /// Whose cursor is to move, if it may.
    fn cursor_owner(&mut self, request: &Request, act_as: &str) -> Result<(UserId, &mut Contents), Refusal> {
        let user = request.actor.acting_user(act_as)?;
        let contents = self.allowed(request, FrameType::Cursor, &user)?;
        // A grant of the service's would let anybody have one.
        if !act_as.is_empty() && contents.conversation.member(&user).is_none() {
            return Err(Refusal::field(ErrorCode::NotFound, "act_as", "the user is no member"));
        }
        Ok((user, contents))
    }

    fn set_cursor(&mut self, fx: &mut Effects, request: &Request, user: &UserId, to: Cursor) {
        let State::Ready(contents) = &mut self.state else {
            let refusal = Refusal::new(ErrorCode::Overloaded, "the log is being read");
            return self.refuse(fx, request, &refusal);
        };
        let moved = contents.cursors.advance(user, to);
        let pushes_receipts = contents.conversation.member_count() <= RECEIPTS_MEMBERS_MAX;
        answer(fx, request.origin, frames::raw(FrameType::Ok, request.origin.request_id, &[]));
        if let Some(cursor) = moved.filter(|_| pushes_receipts) {
            let frame = frames::control(FrameType::Cursors, self.handle, &to_control(user, cursor));
            self.tell(fx, request, &frame);
        }
    }

    pub(super) fn signal(&mut self, fx: &mut Effects, request: &Request) {
        let Operation::Signal(signal) = &request.operation else { return };
        let user = request.actor.user.clone();
        // A signal has no answer: one that is refused is lost, as any signal may be.
        if signal.data.len() > SIGNAL_BYTES_MAX {
            return fx.refused(ErrorCode::LimitExceeded);
        }
        if let Err(refusal) = self.allowed(request, FrameType::Signal, &user) {
            return fx.refused(refusal.code);
        }
        let signaled = control::Signaled {
            handle: self.handle,
            user: user.to_string(),
            kind: signal.kind.clone(),
            data: signal.data.clone(),
            ttl_ms: if signal.ttl_ms == 0 { SIGNAL_TTL.as_millis() as u32 } else { signal.ttl_ms },
        };
        self.tell(fx, request, &frames::control(FrameType::Signaled, self.handle, &signaled));
    }

    /// Sends state to every shard with live readers; the request's own connection does not get it back.
    fn tell(&self, fx: &mut Effects, request: &Request, frame: &Bytes) {
        let except = (request.origin.shard, request.origin.connection);
        for shard in self.interest.keys() {
            fx.post(*shard, ShardMessage::State { handle: self.handle, except, frame: frame.clone() });
        }
    }
}
