//! What lists of conversations show: an inbox names its user's conversations, each conversation's owner says the rest.

use std::collections::BTreeMap;

use antiphon_protocol::{
    ErrorCode, FrameType, LogKey, LogName, UserId,
    control::{Head, Sync, Synced, SyncedLog},
    frames,
};

use super::{Contents, Inbox, Log, State};
use crate::{
    digests::Followers,
    effects::Effects,
    limits::SYNC_ENTRIES_MAX,
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Listing, Operation, Request, ShardMessage},
};

impl Log {
    /// One page of the inbox's conversations.
    pub(super) fn list(&mut self, fx: &mut Effects, request: &Request) {
        let (Operation::List(sync), State::Ready(contents)) = (&request.operation, &self.state) else { return };
        match list(sync, &contents.inbox) {
            Ok(synced) => {
                let listing = Listing { origin: request.origin, synced };
                fx.post(request.origin.shard, ShardMessage::Listed(Box::new(listing)));
            }
            Err(refusal) => self.refuse(fx, request, &refusal),
        }
    }

    /// What this conversation says about itself to one of its readers.
    pub(super) fn summarize(&mut self, fx: &mut Effects, request: &Request) {
        let user = request.actor.user.clone();
        let is_deleted = self.is_deleted_for(&user);
        let entry = match self.readable(request, FrameType::ConversationGet) {
            Ok((contents, floor)) => summary(contents, floor, &user),
            Err(_) if is_deleted => SyncedLog { deleted: true, ..SyncedLog::default() },
            Err(refusal) => refused(&refusal),
        };
        reply(fx, request, entry);
    }

    /// Tells the owners of these users what the conversation is like now.
    pub(crate) fn digest(&self, fx: &mut Effects, shards: &BTreeMap<ShardId, Followers>) {
        let State::Ready(contents) = &self.state else { return };
        let last = contents.newest.to_control();
        let newest = last.as_ref().map_or(u64::MAX, |last| last.seq);
        let to_frame = |last| {
            let (log, epoch) = (self.name.to_string(), contents.epoch);
            let head = Head { log, epoch, seq: contents.head, msgno: contents.head_msgno, last };
            frames::control(FrameType::Head, 0, &head)
        };
        // Who joined after the newest message does not see it.
        let frames = [(true, to_frame(last)), (false, to_frame(None))];
        let conversation = &contents.conversation;
        let is_entitled = |user: &UserId| conversation.member(user).is_some() && !conversation.deleted;
        for (shard, followers) in shards {
            for (sees_newest, frame) in &frames {
                let sees = |user: &UserId| (conversation.visible_from(user) <= newest) == *sees_newest;
                let told = followers.iter().filter(|(user, _)| is_entitled(user) && sees(user));
                let inboxes: Vec<LogKey> = told.map(|(_, inbox)| *inbox).collect();
                if !inboxes.is_empty() {
                    fx.post(*shard, ShardMessage::Digest { log: self.key, frame: frame.clone(), inboxes });
                }
            }
        }
    }

    /// Last durable position; 0 while the log is not read.
    pub(crate) fn head(&self) -> u64 {
        if let State::Ready(contents) = &self.state { contents.head } else { 0 }
    }

    /// Whether this is a deleted conversation whose member the user was to the end.
    fn is_deleted_for(&self, user: &UserId) -> bool {
        let State::Ready(contents) = &self.state else { return false };
        contents.conversation.deleted && contents.conversation.member(user).is_some()
    }
}

/// What is known of a conversation whose owner refuses.
pub(super) fn refused(refusal: &Refusal) -> SyncedLog {
    SyncedLog { error: refusal.code as u32, ..SyncedLog::default() }
}

/// Sends a summary back to whoever puts the answer together.
pub(super) fn reply(fx: &mut Effects, request: &Request, entry: SyncedLog) {
    let Operation::Summarize { index } = request.operation else { return };
    let message = ShardMessage::Summary { origin: request.origin, index, entry: Box::new(entry) };
    fx.post(request.origin.shard, message);
}

fn list(sync: &Sync, inbox: &Inbox) -> Result<Synced, Refusal> {
    let invalid = |field, message: String| Refusal::field(ErrorCode::InvalidField, field, message);
    let after = match sync.after.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|error: antiphon_protocol::InvalidId| invalid("after", error.to_string()))?),
    };
    let limit = match sync.limit as usize {
        0 => SYNC_ENTRIES_MAX,
        limit if limit <= SYNC_ENTRIES_MAX => limit,
        _ => return Err(invalid("limit", format!("at most {SYNC_ENTRIES_MAX} conversations at a time"))),
    };
    let mut memberships = inbox.memberships(after.as_ref());
    let page: Vec<_> = memberships.by_ref().take(limit).collect();
    let has_more = memberships.next().is_some();
    let entries = page.iter().map(|(id, mine)| {
        let log = LogName::Conversation((*id).clone());
        let hidden = inbox.hidden(&log).collect();
        SyncedLog { log: log.to_string(), pinned: mine.pinned, muted: mine.muted, hidden, ..SyncedLog::default() }
    });
    Ok(Synced {
        entries: entries.collect(),
        next: page.last().filter(|_| has_more).map(|(id, _)| id.to_string()).unwrap_or_default(),
        blocked: if after.is_none() { inbox.blocked().iter().map(UserId::to_string).collect() } else { Vec::new() },
    })
}

fn summary(contents: &Contents, floor: u64, user: &UserId) -> SyncedLog {
    let cursor = contents.cursors.get(user);
    SyncedLog {
        kind: contents.conversation.kind.into(),
        title: contents.conversation.title.clone(),
        epoch: contents.epoch,
        head: contents.head,
        head_msgno: contents.head_msgno,
        time_ms: contents.head_time_ms(),
        last: contents.newest_from(floor),
        delivered: cursor.delivered,
        read: cursor.read,
        read_msgno: cursor.read_msgno,
        ..SyncedLog::default()
    }
}
