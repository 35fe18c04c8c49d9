//! What one reader sees of a log: from which position on. Every path that shows rows, or what they hold, asks here.
//!
//! A reader's floor is the log's floor, below which nothing exists, or the position from which the reader may see the
//! log ([`visible_from`]), whichever is higher. To the reader both are the same: there is nothing below it.

use antiphon_protocol::{EventKind, FrameType, Row, UserId, control, frames};

use super::{Contents, Log, State, cursors::Cursor};
use crate::{actor::Actor, authority::visible_from, refusal::Refusal, shard_message::Request};

impl Log {
    /// The contents and the reader's floor, once the request is allowed.
    pub(super) fn readable(
        &mut self,
        request: &Request,
        frame_type: FrameType,
    ) -> Result<(&mut Contents, u64), Refusal> {
        let user = &request.actor.user;
        let floor = self.floor_for(&request.actor, user);
        Ok((self.allowed(request, frame_type, user)?, floor))
    }

    /// First position that exists for this reader, if it may read the log.
    pub(super) fn floor_for(&self, actor: &Actor, user: &UserId) -> u64 {
        let State::Ready(contents) = &self.state else { return u64::MAX };
        contents.floor().max(visible_from(actor, user, &self.name, &contents.conversation))
    }
}

impl Contents {
    /// The newest message as a list of conversations shows it to a reader with this floor.
    pub(super) fn newest_from(&self, floor: u64) -> Option<control::LastMessage> {
        self.newest.to_control().filter(|newest| newest.seq >= floor)
    }

    /// Moves the cursors of which a durable row tells. The readers know them from the event itself.
    pub(super) fn tell_cursors(&mut self, row: &Row) {
        let to = Cursor { delivered: row.seq(), read: row.seq(), read_msgno: row.msgno() };
        match row.kind() {
            // Whoever sends a message has read up to it; one that a service sends for a user says nothing about that user.
            EventKind::MESSAGE if row.via().is_none() => {
                if let Some(sender) = self.conversation.member_id(row.sender()) {
                    self.cursors.tell(sender, to);
                }
            }
            // Whoever becomes a member and sees nothing of what was before has nothing of it unread.
            EventKind::MEMBER if self.conversation.history == control::History::Joined => {
                let Ok(event) = frames::decode_answer::<control::MemberEvent>(&row.body()) else { return };
                let users = event.members.iter().filter_map(|member| member.user.parse::<UserId>().ok());
                for user in users.filter(|user| self.conversation.visible_from(user) == row.seq()) {
                    self.cursors.tell(&user, to);
                }
            }
            _ => {}
        }
    }
}
