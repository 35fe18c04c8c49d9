//! A history as another system would hand it over: the file for `antiphon import`, and what has to be in the logs then.

use std::io::{self, Write};

use antiphon_sdk::{EventKind, InvalidId};
use serde_json::json;

use crate::{
    merge::Group,
    names::{Names, Seat},
};

/// When the first message of every conversation was sent there, Unix milliseconds.
const BEGUN_MS: u64 = 1_500_000_000_000;
/// Every so many messages one answers the one before, and one gets a reaction.
const REPLY_EVERY: usize = 5;
const REACTION_EVERY: usize = 4;

/// An event that has to be in a log, in this place among those that were imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What happened.
    pub kind: EventKind,
    /// Who did it.
    pub sender: String,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// The text; empty for a reaction.
    pub text: String,
}

/// Writes the history of `groups`; returns the events of each, in order.
///
/// # Errors
///
/// The file cannot be written, or a name is too long.
pub fn write(groups: &[Group], names: &Names, out: &mut impl Write) -> io::Result<Vec<Vec<Expected>>> {
    let mut all = Vec::with_capacity(groups.len());
    for (number, group) in (0..).zip(groups) {
        let user = |member| names.user(Seat { group: number, member }).map(|user| user.to_string()).map_err(named);
        let conversation = names.conversation(number).map_err(named)?.to_string();
        let members = (1..group.members).map(user).collect::<Result<Vec<_>, _>>()?;
        let owner = user(0)?;
        line(out, &json!({ "type": "conversation", "id": conversation, "owner": owner, "members": members }))?;
        let mut expected = Vec::new();
        for (index, message) in group.messages.iter().enumerate() {
            let (sender, time_ms) = (user(message.member)?, BEGUN_MS + message.at_ms);
            let text = String::from_utf8_lossy(&message.text).into_owned();
            let id = |index: usize| format!("{conversation}/{index}");
            let mut told = json!({
                "type": "message", "conversation": conversation, "id": id(index), "sender": sender,
                "time_ms": time_ms, "text": text,
            });
            if index % REPLY_EVERY == REPLY_EVERY - 1 {
                told["reply_to"] = json!(id(index - 1));
            }
            line(out, &told)?;
            expected.push(Expected { kind: EventKind::MESSAGE, sender, time_ms, text });
            if index % REACTION_EVERY == REACTION_EVERY - 1 {
                let sender = user((message.member + 1) % group.members)?;
                line(
                    out,
                    &json!({
                        "type": "reaction", "conversation": conversation, "of": id(index), "sender": sender,
                        "time_ms": time_ms, "key": "+1",
                    }),
                )?;
                expected.push(Expected { kind: EventKind::REACTION, sender, time_ms, text: String::new() });
            }
        }
        if let Some(last) = group.messages.len().checked_sub(1) {
            let read = format!("{conversation}/{last}");
            line(out, &json!({ "type": "cursor", "conversation": conversation, "user": owner, "read": read }))?;
        }
        all.push(expected);
    }
    Ok(all)
}

fn line(out: &mut impl Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

fn named(error: InvalidId) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
