//! Consequences of this log's events in other logs, on their way.
//!
//! commit -> owe -> journal has the log already -> `Operation::Effect` to the target's owner -> `EffectDone` -> forget
//!
//! Invariants: an event with consequences is appended only after the log is in its partition's journal; the log leaves
//! it only when nothing is owed; consequences for one target arrive in the order of their rows. After a crash the log is
//! taken up because of the journal, and owes again what its checkpoint says it owed and what the rows behind the
//! checkpoint come to; the targets know what they have had.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    EventKind, LogKey, LogName, Row, TenantId, UserId,
    control::{self, ConversationKind, conversation_event, conversation_removed::Reason, member_event},
    frames,
};

use super::{Conversation, Flow, Log, Purpose, Stall, State};
use crate::{
    actor::Actor,
    effect::{Consequence, Effect, direct_name},
    effects::Effects,
    journal,
    limits::{EFFECTS_IN_FLIGHT_MAX, EFFECTS_OWED_MAX, RETRY_EFFECTS_AFTER},
    refusal::Refusal,
    seldom::Empty,
    shard_message::{Operation, Origin, Request, ShardMessage},
};

/// One consequence for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owed {
    seq: u64,
    by: UserId,
    consequence: Consequence,
}

/// What one log owes to others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Across {
    by_target: BTreeMap<LogName, VecDeque<Owed>>,
    /// Targets whose first consequence was not sent yet.
    ready: VecDeque<LogName>,
    /// Targets that could not take theirs; they are asked again after a while.
    failed: Vec<LogName>,
    in_flight: usize,
    /// Whether the log is, or may be, in its partition's journal.
    is_journaled: bool,
}

impl Empty for Across {
    fn empty() -> &'static Self {
        static EMPTY: Across = Across {
            by_target: BTreeMap::new(),
            ready: VecDeque::new(),
            failed: Vec::new(),
            in_flight: 0,
            is_journaled: false,
        };
        &EMPTY
    }
}

impl Across {
    /// For a log that may be in the journal.
    pub(super) fn new(is_journaled: bool) -> Self {
        Self { is_journaled, ..Self::default() }
    }

    /// Whether nothing is owed and the journal does not say otherwise.
    pub(super) fn is_settled(&self) -> bool {
        self.by_target.is_empty() && !self.is_journaled
    }

    fn owe(&mut self, target: LogName, owed: Owed) {
        let queue = self.by_target.entry(target.clone()).or_default();
        if queue.iter().any(|known| known.seq == owed.seq) {
            return;
        }
        queue.push_back(owed);
        if queue.len() == 1 {
            self.ready.push_back(target);
        }
    }

    fn next(&mut self) -> Option<(LogName, Owed)> {
        if self.in_flight >= EFFECTS_IN_FLIGHT_MAX {
            return None;
        }
        let target = self.ready.pop_front()?;
        let owed = self.by_target.get(&target)?.front()?.clone();
        self.in_flight += 1;
        Some((target, owed))
    }

    fn answered(&mut self, target: &LogName, seq: u64, is_durable: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(queue) = self.by_target.get_mut(target) else { return };
        if !is_durable {
            self.failed.push(target.clone());
            return;
        }
        queue.retain(|owed| owed.seq != seq);
        if queue.is_empty() {
            self.by_target.remove(target);
        } else {
            self.ready.push_back(target.clone());
        }
    }

    /// What is owed, as a checkpoint holds it.
    pub(super) fn to_state(&self) -> Vec<OwedState> {
        let all = self.by_target.iter().flat_map(|(target, queue)| queue.iter().map(move |owed| (target, owed)));
        all.map(|(target, owed)| OwedState::new(target, owed)).collect()
    }
}

/// A consequence inside a checkpoint. Stored, so its tags and numbers are never reused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct OwedState {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(string, tag = "3")]
    by: String,
    /// 1 = added, 2 = removed, 3 = blocked.
    #[prost(uint32, tag = "4")]
    what: u32,
    /// Kind, reason, or whether blocked.
    #[prost(int32, tag = "5")]
    how: i32,
}

impl OwedState {
    fn new(target: &LogName, owed: &Owed) -> Self {
        let (what, how) = match owed.consequence {
            Consequence::Added(kind) => (1, kind.into()),
            Consequence::Removed(reason) => (2, reason.into()),
            Consequence::Blocked(blocked) => (3, i32::from(blocked)),
        };
        Self { target: target.to_string(), seq: owed.seq, by: owed.by.to_string(), what, how }
    }

    fn read(&self) -> Option<(LogName, Owed)> {
        let consequence = match self.what {
            1 => Consequence::Added(ConversationKind::try_from(self.how).ok()?),
            2 => Consequence::Removed(Reason::try_from(self.how).ok()?),
            3 => Consequence::Blocked(self.how != 0),
            _ => return None,
        };
        Some((self.target.parse().ok()?, Owed { seq: self.seq, by: self.by.parse().ok()?, consequence }))
    }
}

impl Log {
    /// Before an event with consequences: enters the log into its journal. The request is carried out after that.
    /// `None` if the log is there already.
    pub(super) fn enter_journal(&mut self, fx: &mut Effects, request: Box<Request>) -> Result<Flow, Box<Request>> {
        if self.across.by_target.len() >= EFFECTS_OWED_MAX {
            let message = "too many users have not heard of earlier changes yet";
            self.refuse(fx, &request, &Refusal::new(antiphon_protocol::ErrorCode::Overloaded, message));
            return Ok(Flow::Done);
        }
        if self.across.is_journaled {
            return Err(request);
        }
        let op = journal::enter(self.key, &self.name, &self.tenant);
        fx.store_for(self.key, op, Purpose::Journaled(request));
        Ok(Flow::Stalled(Stall::Store))
    }

    /// The log is in its journal, or could not be entered.
    pub(super) fn journaled(
        &mut self,
        fx: &mut Effects,
        request: Box<Request>,
        result: Result<(), antiphon_storage_contract::StoreError>,
    ) {
        self.stall = None;
        match result {
            Ok(()) => {
                self.across.is_journaled = true;
                self.waiting.push_front(request);
            }
            Err(error) => {
                self.refuse(fx, &request, &Refusal { is_outcome_unknown: false, ..Refusal::from(&error) });
            }
        }
        self.drain(fx);
    }

    /// A row is durable and folded in: owes what it comes to.
    pub(super) fn owe_for(&mut self, fx: &mut Effects, row: &Row) {
        self.owe(row);
        self.post_owed(fx);
    }

    /// The log was read and is ready. If it may be in the journal it owes what its checkpoint says, and what the rows
    /// come to that this process has not seen become durable.
    pub(super) fn settle(&mut self, fx: &mut Effects) {
        let rows = std::mem::take(&mut self.unsettled);
        let State::Ready(contents) = &mut self.state else { return };
        let owed = std::mem::take(&mut contents.owed);
        if !self.across.is_journaled {
            return;
        }
        for (target, owed) in owed.iter().filter_map(OwedState::read) {
            self.across.owe(target, owed);
        }
        for row in &rows {
            self.owe(row);
        }
        self.post_owed(fx);
    }

    /// The log could not be read; if it may owe something, it is read again after a while.
    pub(super) fn settle_later(&self, fx: &mut Effects) {
        if self.across.is_journaled {
            fx.wake(self.key, RETRY_EFFECTS_AFTER);
        }
    }

    fn owe(&mut self, row: &Row) {
        let State::Ready(contents) = &self.state else { return };
        let Ok(by) = row.sender().parse::<UserId>() else { return };
        for (target, consequence) in consequences(row, &contents.conversation, &self.name, &self.tenant) {
            self.across.owe(target, Owed { seq: row.seq(), by: by.clone(), consequence });
        }
    }

    fn post_owed(&mut self, fx: &mut Effects) {
        let mut broker = None;
        while let Some((target, owed)) = self.across.existing().and_then(Across::next) {
            let actor = broker.get_or_insert_with(|| Actor::broker(&self.tenant)).clone();
            let effect = Effect {
                source: self.key,
                source_name: self.name.clone(),
                seq: owed.seq,
                by: owed.by,
                consequence: owed.consequence,
            };
            let key = target.key(&self.tenant);
            let operation = Operation::Effect(Box::new(effect));
            let request = Request { origin: Origin::nobody(fx.shard), actor, log: target, key, operation };
            fx.post(fx.routing.owner(key), ShardMessage::Request(Box::new(request)));
        }
        self.leave_journal(fx);
    }

    /// A target has made its part durable, or could not.
    pub(crate) fn effect_done(&mut self, fx: &mut Effects, target: &LogName, seq: u64, is_durable: bool) {
        if let Some(across) = self.across.existing() {
            across.answered(target, seq, is_durable);
        }
        if !is_durable {
            fx.wake(self.key, RETRY_EFFECTS_AFTER);
        }
        self.post_owed(fx);
    }

    /// A moment has come that this log asked for.
    pub(crate) fn woken(&mut self, fx: &mut Effects) {
        if self.is_unloaded() && self.across.is_journaled {
            self.load_again(fx);
        }
        if let Some(across) = self.across.existing() {
            across.ready.extend(across.failed.drain(..));
        }
        self.post_owed(fx);
        self.expire(fx);
    }

    /// Takes the log out of the journal once nothing is owed and no event that would owe is on its way.
    pub(super) fn leave_journal(&mut self, fx: &mut Effects) {
        if !self.across.is_journaled || !self.across.by_target.is_empty() {
            return;
        }
        if matches!(self.state, State::Ready(_)) && !matches!(self.stall, Some(Stall::Durable(_))) {
            self.across.is_journaled = false;
            fx.store_for(self.key, journal::strike(self.key), Purpose::Struck);
        }
    }
}

/// Tells the source of an effect what came of it.
pub(super) fn report(fx: &mut Effects, source: LogKey, target: &LogName, seq: u64, is_durable: bool) {
    let message = ShardMessage::EffectDone { source, target: target.clone(), seq, is_durable };
    fx.post(fx.routing.owner(source), message);
}

/// What a row comes to elsewhere. `conversation` is the fold through it or through a later row.
fn consequences(
    row: &Row,
    conversation: &Conversation,
    name: &LogName,
    tenant: &TenantId,
) -> Vec<(LogName, Consequence)> {
    let inboxes = |members: &[control::Member], consequence: Consequence| {
        let users = members.iter().filter_map(|member| member.user.parse().ok());
        users.map(|user| (LogName::Inbox(user), consequence)).collect()
    };
    match row.kind() {
        EventKind::MEMBER => {
            let Ok(event) = frames::decode_answer::<control::MemberEvent>(&row.body()) else { return Vec::new() };
            match event.change() {
                member_event::Change::Added | member_event::Change::Joined => {
                    inboxes(&event.members, Consequence::Added(conversation.kind))
                }
                member_event::Change::Removed => inboxes(&event.members, Consequence::Removed(Reason::Removed)),
                member_event::Change::Left => inboxes(&event.members, Consequence::Removed(Reason::Left)),
                member_event::Change::Role => Vec::new(),
            }
        }
        EventKind::CONVERSATION => {
            let Ok(event) = frames::decode_answer::<control::ConversationEvent>(&row.body()) else {
                return Vec::new();
            };
            match event.change() {
                conversation_event::Change::Created => inboxes(&event.members, Consequence::Added(event.kind())),
                conversation_event::Change::Updated => Vec::new(),
                // Nothing changes the members of a deleted conversation, so these are the last ones.
                conversation_event::Change::Deleted => {
                    let users = conversation.members().map(|(user, _)| LogName::Inbox(user.clone()));
                    users.map(|inbox| (inbox, Consequence::Removed(Reason::Deleted))).collect()
                }
            }
        }
        EventKind::BLOCK => block(row, name, tenant).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn block(row: &Row, name: &LogName, tenant: &TenantId) -> Option<(LogName, Consequence)> {
    let LogName::Inbox(owner) = name else { return None };
    let event = frames::decode_answer::<control::Block>(&row.body()).ok()?;
    let id = direct_name(tenant, owner, &event.user.parse().ok()?).parse().ok()?;
    Some((LogName::Conversation(id), Consequence::Blocked(event.blocked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(seq: u64) -> Owed {
        Owed { seq, by: "ann".parse().unwrap(), consequence: Consequence::Added(ConversationKind::Group) }
    }

    fn inbox(n: usize) -> LogName {
        LogName::Inbox(format!("u{n}").parse().unwrap())
    }

    #[test]
    fn a_target_gets_one_at_a_time_in_order_and_all_targets_so_many() {
        let mut across = Across::new(true);
        for n in 0..EFFECTS_IN_FLIGHT_MAX + 1 {
            across.owe(inbox(n), owed(1));
        }
        across.owe(inbox(0), owed(2));
        across.owe(inbox(0), owed(2));
        let sent: Vec<_> = std::iter::from_fn(|| across.next()).collect();
        assert_eq!(sent.len(), EFFECTS_IN_FLIGHT_MAX);
        across.answered(&inbox(0), 1, true);
        assert_eq!(across.next(), Some((inbox(EFFECTS_IN_FLIGHT_MAX), owed(1))));
        across.answered(&inbox(1), 1, true);
        assert_eq!(across.next(), Some((inbox(0), owed(2))), "once, although it was owed twice");
    }

    #[test]
    fn what_failed_waits_and_a_checkpoint_holds_what_is_owed() {
        let mut across = Across::new(true);
        across.owe(inbox(0), owed(1));
        assert!(across.next().is_some());
        across.answered(&inbox(0), 1, false);
        assert_eq!(across.next(), None);
        assert_eq!(across.failed, [inbox(0)]);
        let state = across.to_state();
        assert_eq!(state.iter().filter_map(OwedState::read).collect::<Vec<_>>(), [(inbox(0), owed(1))]);
    }
}
