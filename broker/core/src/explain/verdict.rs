//! What the shards have written down -> the answer in a word. Pure.

use antiphon_protocol::ErrorCode;

use super::{AtLog, AtSession, Explanation, Found};

/// The answer in a word. The first one that holds, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An owner could not answer.
    Unknown(ErrorCode),
    /// The log has not got so far.
    NoSuchEvent,
    /// Another event is at the position, or the position is of another history.
    OtherEvent,
    /// Retention has removed it.
    Expired,
    /// The user may not read the log.
    Refused(ErrorCode),
    /// The user may read the log from a later position on.
    BeforeJoining,
    /// The user hid it.
    Hidden,
    /// The user has read it.
    Read,
    /// A device of the user says that it has it.
    Delivered,
    /// No session of the user is connected; one that comes back gets it.
    NotConnected,
    /// No session of the user that may read the log subscribes to it.
    NotSubscribed,
    /// Sessions subscribe from a later position on: they had to ask for it, which leaves no trace.
    BeforeSubscription,
    /// It was for a live subscription, and waits on the broker or is on its way; no device has said that it has it.
    Sent,
}

impl Verdict {
    /// The word for it, stable.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::NoSuchEvent => "no_such_event",
            Self::OtherEvent => "other_event",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
            Self::BeforeJoining => "before_joining",
            Self::Hidden => "hidden",
            Self::Read => "read",
            Self::Delivered => "delivered",
            Self::NotConnected => "not_connected",
            Self::NotSubscribed => "not_subscribed",
            Self::BeforeSubscription => "before_subscription",
            Self::Sent => "sent",
        }
    }

    /// The code that a client gets, if it is that.
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Unknown(code) | Self::Refused(code) => Some(code),
            _ => None,
        }
    }
}

impl AtLog {
    /// First position that a session may read, or the code with which a read is refused: a grant opens what a membership
    /// does not, but neither what was deleted nor what one was removed from.
    pub fn reads_from(&self, is_granted: bool) -> Result<u64, ErrorCode> {
        match self.reads_from {
            Err(ErrorCode::NotFound) | Ok(_) if is_granted && !self.is_deleted => Ok(1),
            other => other,
        }
    }
}

impl Explanation {
    /// The answer in a word.
    pub fn verdict(&self) -> Verdict {
        let (log, inbox) = match (&self.log, &self.inbox) {
            (Err(code), _) | (Ok(_), Err(code)) => return Verdict::Unknown(*code),
            (Ok(log), Ok(inbox)) => (log, inbox),
        };
        let seq = self.question.seq;
        match &log.event {
            _ if self.question.epoch.is_some_and(|epoch| epoch != log.epoch) => return Verdict::OtherEvent,
            Found::NotYet => return Verdict::NoSuchEvent,
            Found::Gone => return Verdict::Expired,
            Found::Unreadable(code) => return Verdict::Unknown(*code),
            Found::Event(event) if self.question.event_id.is_some_and(|id| id != event.event_id) => {
                return Verdict::OtherEvent;
            }
            Found::Event(_) => {}
        }
        let any_grant = self.sessions.iter().any(|session| session.is_granted);
        match log.reads_from(any_grant) {
            Err(code) => return Verdict::Refused(code),
            Ok(from) if seq < from => return Verdict::BeforeJoining,
            Ok(_) => {}
        }
        match () {
            () if inbox.is_hidden => Verdict::Hidden,
            () if log.read >= seq => Verdict::Read,
            () if log.delivered >= seq => Verdict::Delivered,
            () if self.sessions.is_empty() => Verdict::NotConnected,
            () => self.on_the_way(log),
        }
    }

    /// The answer if the event is for connected sessions and none has said that it has it.
    fn on_the_way(&self, log: &AtLog) -> Verdict {
        let may_read =
            |session: &&AtSession| log.reads_from(session.is_granted).is_ok_and(|from| from <= self.question.seq);
        match self.sessions.iter().filter(may_read).filter_map(|session| session.live_from).min() {
            None => Verdict::NotSubscribed,
            Some(live_from) if live_from > self.question.seq => Verdict::BeforeSubscription,
            Some(_) => Verdict::Sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::EventKind;
    use uuid::Uuid;

    use super::{
        super::{AtInbox, Question, StoredEvent},
        *,
    };
    use crate::routing::ShardId;

    /// A stored event at position 5, read by its sender's token alone, and nobody connected.
    fn plain() -> Explanation {
        let question = Question {
            ticket: 1,
            tenant: "acme".parse().unwrap(),
            log: "c:tea".parse().unwrap(),
            seq: 5,
            event_id: None,
            epoch: None,
            user: "bob".parse().unwrap(),
        };
        let event = StoredEvent {
            event_id: Uuid::from_u128(7),
            kind: EventKind::MESSAGE,
            sender: "ann".into(),
            time_ms: 1,
            is_redacted: false,
        };
        let log = AtLog {
            epoch: 1,
            head: 9,
            floor: 2,
            event: Found::Event(event),
            reads_from: Ok(1),
            is_deleted: false,
            member: None,
            removed_at: None,
            is_blocked: false,
            delivered: 4,
            read: 3,
        };
        let inbox = AtInbox { is_hidden: false, blocks_sender: false, is_muted: false, tokens_not_before_ms: 0 };
        Explanation { question, log: Ok(log), inbox: Ok(inbox), sessions: Vec::new() }
    }

    fn session(live_from: Option<u64>, is_granted: bool) -> AtSession {
        AtSession {
            shard: ShardId(0),
            device: "phone".parse().unwrap(),
            session_id: Uuid::nil(),
            is_on_trunk: false,
            follows: false,
            is_granted,
            live_from,
            waiting_bytes: 0,
            has_undelivered: false,
        }
    }

    fn with(change: impl FnOnce(&mut Question, &mut AtLog, &mut AtInbox, &mut Vec<AtSession>)) -> Verdict {
        let mut e = plain();
        let (Ok(log), Ok(inbox)) = (&mut e.log, &mut e.inbox) else { unreachable!() };
        change(&mut e.question, log, inbox, &mut e.sessions);
        e.verdict()
    }

    #[test]
    fn the_first_reason_that_holds_is_the_answer() {
        let failed = ErrorCode::StoreUnavailable;
        assert_eq!(with(|_, log, _, _| log.event = Found::NotYet), Verdict::NoSuchEvent);
        assert_eq!(with(|_, log, _, _| log.event = Found::Gone), Verdict::Expired);
        assert_eq!(with(|_, log, _, _| log.event = Found::Unreadable(failed)), Verdict::Unknown(failed));
        assert_eq!(with(|question, _, _, _| question.event_id = Some(Uuid::nil())), Verdict::OtherEvent);
        assert_eq!(with(|question, _, _, _| question.epoch = Some(2)), Verdict::OtherEvent);
        assert_eq!(with(|question, _, _, _| question.event_id = Some(Uuid::from_u128(7))), Verdict::NotConnected);
        assert_eq!(with(|_, log, _, _| log.reads_from = Ok(6)), Verdict::BeforeJoining);
        assert_eq!(with(|_, _, inbox, _| inbox.is_hidden = true), Verdict::Hidden);
        assert_eq!(with(|_, log, _, _| (log.delivered, log.read) = (5, 5)), Verdict::Read);
        assert_eq!(with(|_, log, _, _| log.delivered = 5), Verdict::Delivered);
        assert_eq!(with(|_, _, _, sessions| sessions.push(session(None, false))), Verdict::NotSubscribed);
        assert_eq!(with(|_, _, _, sessions| sessions.push(session(Some(6), false))), Verdict::BeforeSubscription);
        let both = |sessions: &mut Vec<AtSession>| sessions.extend([session(Some(6), false), session(Some(5), false)]);
        assert_eq!(with(|_, _, _, sessions| both(sessions)), Verdict::Sent);
    }

    #[test]
    fn a_grant_opens_what_a_membership_does_not_and_a_removal_beats_it() {
        let refused = |code, is_granted| {
            with(|_, log, _, sessions| {
                log.reads_from = Err(code);
                sessions.push(session(Some(1), is_granted));
            })
        };
        assert_eq!(refused(ErrorCode::NotFound, false), Verdict::Refused(ErrorCode::NotFound));
        assert_eq!(refused(ErrorCode::NotFound, true), Verdict::Sent);
        assert_eq!(refused(ErrorCode::Removed, true), Verdict::Refused(ErrorCode::Removed));
        let deleted = with(|_, log, _, sessions| {
            (log.reads_from, log.is_deleted) = (Err(ErrorCode::NotFound), true);
            sessions.push(session(Some(1), true));
        });
        assert_eq!(deleted, Verdict::Refused(ErrorCode::NotFound));
        let late = with(|_, log, _, sessions| {
            log.reads_from = Ok(6);
            sessions.extend([session(Some(1), false), session(None, true)]);
        });
        assert_eq!(late, Verdict::NotSubscribed, "the session that subscribes may not read it, the other may");
    }

    #[test]
    fn without_an_owner_nothing_is_known() {
        assert_eq!(Explanation::new(plain().question).verdict(), Verdict::Unknown(ErrorCode::Internal));
        let inbox = Err(ErrorCode::StoreUnavailable);
        assert_eq!(Explanation { inbox, ..plain() }.verdict(), Verdict::Unknown(ErrorCode::StoreUnavailable));
    }
}
