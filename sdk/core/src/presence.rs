//! Who is there: the users whom the application watches, restated to every new session.
//!
//! A session has one list, and a newer one takes its place, so at most one wish waits for the broker: the newest.
//! Deliberately absent: what the users' presences are (the shell keeps the newest of each), and the user's own, which the
//! broker forgets with the last session and nobody restates, since another device may have changed it meanwhile.

use std::{collections::BTreeSet, fmt};

use antiphon_protocol::{FrameType, UserId, control, frames};

use crate::{
    error::{Refusal, RequestError, StopReason},
    input::CommandId,
    limits::{PRESENCE_WATCHED_MAX, REQUESTS_MAX},
    link::{Link, Pending},
    output::Output,
    timers::Timer,
};

/// How a user is shown to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PresenceStatus {
    /// Not there, or not shown.
    #[default]
    Offline,
    /// There.
    Online,
    /// There, but not at the device.
    Away,
    /// There, but not to be disturbed.
    Busy,
    /// The broker cannot say now. Told only; it cannot be set.
    Unknown,
}

/// How a user is now, as far as it is known: a change may be lost, and comes with the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// How they are shown.
    pub status: PresenceStatus,
    /// What they say about it, at most 128 bytes; mostly empty.
    pub text: String,
}

impl PresenceStatus {
    pub(crate) fn encode(self) -> control::PresenceStatus {
        match self {
            Self::Offline => control::PresenceStatus::Offline,
            Self::Online => control::PresenceStatus::Online,
            Self::Away => control::PresenceStatus::Away,
            Self::Busy => control::PresenceStatus::Busy,
            Self::Unknown => control::PresenceStatus::Unknown,
        }
    }

    fn from_number(number: i32) -> Self {
        match control::PresenceStatus::try_from(number) {
            Ok(control::PresenceStatus::Offline) => Self::Offline,
            Ok(control::PresenceStatus::Away) => Self::Away,
            Ok(control::PresenceStatus::Busy) => Self::Busy,
            Ok(control::PresenceStatus::Unknown) => Self::Unknown,
            // Whoever has a status of a later version is there in some way.
            Ok(control::PresenceStatus::Online) | Err(_) => Self::Online,
        }
    }
}

impl fmt::Display for PresenceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        })
    }
}

/// The watched users, and whether the broker knows the list.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    users: BTreeSet<UserId>,
    /// Whether the broker has yet to be told, on this connection.
    dirty: bool,
    in_flight: bool,
    /// Refusals since the last OK.
    refusals: u32,
    /// Who waits until the list is in force.
    waiting: Vec<CommandId>,
}

impl Watch {
    /// Takes a new list, or tells why not.
    pub(crate) fn set(&mut self, link: &mut Link, id: CommandId, users: BTreeSet<UserId>) {
        let error = if users.len() > PRESENCE_WATCHED_MAX {
            Some(RequestError::TooMany { what: "watched users", count: users.len(), max: PRESENCE_WATCHED_MAX })
        } else if self.waiting.len() >= REQUESTS_MAX {
            Some(RequestError::QueueFull(self.waiting.len()))
        } else {
            None
        };
        if let Some(error) = error {
            return link.emit(Output::Done { id, result: Err(error) });
        }
        self.waiting.push(id);
        self.users = users;
        self.dirty = true;
        self.write(link);
    }

    /// Tells the broker, if there is news, a session, and no earlier list under way.
    fn write(&mut self, link: &mut Link) {
        if !self.dirty || self.in_flight || !link.ready || link.timers.is_set(&Timer::Presence) {
            return;
        }
        (self.dirty, self.in_flight) = (false, true);
        let users = self.users.iter().map(ToString::to_string).collect();
        let body = control::PresenceSubscribe { users };
        link.request(Pending::Presence, |id| frames::control(FrameType::PresenceSubscribe, id, &body));
    }

    /// A session stands: it watches nobody yet.
    pub(crate) fn ready(&mut self, link: &mut Link) {
        self.dirty = !self.users.is_empty() || !self.waiting.is_empty();
        self.write(link);
    }

    pub(crate) fn answered(&mut self, link: &mut Link) {
        self.in_flight = false;
        self.refusals = 0;
        if !self.dirty {
            self.finish(link, &Ok(()));
        }
        self.write(link);
    }

    pub(crate) fn refused(&mut self, link: &mut Link, refusal: Refusal) {
        self.in_flight = false;
        if refusal.is_transient() {
            self.dirty = true;
            let delay = link.backoff(self.refusals).max(refusal.retry_after.unwrap_or_default());
            self.refusals += 1;
            link.set_timer(Timer::Presence, delay);
        } else if !self.dirty {
            // It would be refused after every reconnect again.
            self.users.clear();
            self.finish(link, &Err(RequestError::Refused(refusal)));
        }
        self.write(link);
    }

    /// The wait after a refusal is over.
    pub(crate) fn due(&mut self, link: &mut Link) {
        self.write(link);
    }

    /// PRESENCE. What is left of an earlier list is nobody's business any more.
    pub(crate) fn told(&self, link: &mut Link, presence: control::Presence) {
        if let Ok(user) = presence.user.parse::<UserId>()
            && self.users.contains(&user)
        {
            let status = PresenceStatus::from_number(presence.status);
            link.emit(Output::Presence(Presence { user, status, text: presence.text }));
        }
    }

    /// The connection is lost, and with it what the session watched.
    pub(crate) fn down(&mut self, link: &mut Link) {
        self.in_flight = false;
        self.refusals = 0;
        link.timers.cancel(&Timer::Presence);
    }

    pub(crate) fn stop(&mut self, link: &mut Link, reason: &StopReason) {
        self.finish(link, &Err(RequestError::Stopped(reason.clone())));
    }

    fn finish(&mut self, link: &mut Link, result: &Result<(), RequestError>) {
        for id in self.waiting.drain(..) {
            link.emit(Output::Done { id, result: result.clone() });
        }
    }
}
