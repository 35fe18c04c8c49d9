//! What a turn says, and what it is answered: the Rust half of `lua/turn.lua`.

use antiphon_protocol::{DeviceId, control::PresenceStatus};
use antiphon_storage::presence::{Look, Seen, UserKey};
use fred::types::Value;

use crate::{
    config::Timing,
    keys::{parse_user, user_name},
};

/// A seat as Redis knows it: whose, and `<process>/<device>/<incarnation>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatName {
    pub(crate) user: UserKey,
    pub(crate) name: String,
}

/// One statement or question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    Here { seat: SeatName, look: Look, not_before_ms: u64 },
    Left(SeatName),
    Look(UserKey),
    Devices(UserKey),
    Revoke { user: UserKey, not_before_ms: u64 },
}

/// How a user is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserState {
    /// Grows with every change.
    pub(crate) version: u64,
    pub(crate) is_here: bool,
    /// Of the user's presence, or the last one.
    pub(crate) look: Look,
}

impl UserState {
    pub(crate) fn seen(&self) -> Seen {
        if self.is_here { Seen::from(&self.look) } else { Seen::offline() }
    }
}

/// What came of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    State { state: UserState, not_before_ms: u64 },
    Devices(Vec<DeviceId>),
    NotBefore(u64),
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The bucket's id: another one means that everything was lost.
    pub(crate) life: String,
    /// One for each statement.
    pub(crate) outcomes: Vec<Outcome>,
}

/// What a bucket announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    User { life: String, user: UserKey, state: UserState },
    Revoked { user: UserKey, not_before_ms: u64 },
}

/// The arguments of the script.
pub(crate) fn arguments(
    timing: &Timing,
    process: &str,
    number: u64,
    fresh_id: String,
    statements: &[Statement],
) -> Vec<Value> {
    let millis = |duration: std::time::Duration| Value::from(duration.as_millis().to_string());
    let mut arguments = vec![process.into(), number.to_string().into(), fresh_id.into()];
    arguments.extend([timing.seat_ttl, timing.gap, timing.settle, timing.keep(), timing.revocation_ttl].map(millis));
    for statement in statements {
        push(&mut arguments, statement);
    }
    arguments
}

fn push(arguments: &mut Vec<Value>, statement: &Statement) {
    let (word, user) = match statement {
        Statement::Here { seat, .. } => ("here", &seat.user),
        Statement::Left(seat) => ("left", &seat.user),
        Statement::Look(user) => ("look", user),
        Statement::Devices(user) => ("devices", user),
        Statement::Revoke { user, .. } => ("revoke", user),
    };
    arguments.extend([word.into(), user_name(user).into()]);
    match statement {
        Statement::Here { seat, look, not_before_ms } => {
            let status = i32::from(look.status).to_string();
            let numbers = [look.set_at_ms.to_string(), status].map(Value::from);
            arguments.push(seat.name.as_str().into());
            arguments.extend(numbers);
            arguments.extend([look.text.as_str().into(), not_before_ms.to_string().into()]);
        }
        Statement::Left(seat) => arguments.push(seat.name.as_str().into()),
        Statement::Revoke { not_before_ms, .. } => arguments.push(not_before_ms.to_string().into()),
        Statement::Look(_) | Statement::Devices(_) => {}
    }
}

/// What the script answered to `statements`; `None` if it makes no sense, or if the turn came late.
pub(crate) fn parse_answer(answer: &Value, statements: &[Statement]) -> Option<Answered> {
    let Value::Array(parts) = answer else { return None };
    let [verdict, life, outcomes @ ..] = parts.as_slice() else { return None };
    if text(verdict)? != "ok" || outcomes.len() != statements.len() {
        return None;
    }
    let parsed = statements.iter().zip(outcomes).map(|(statement, outcome)| parse_outcome(statement, outcome));
    Some(Answered { life: text(life)?, outcomes: parsed.collect::<Option<_>>()? })
}

fn parse_outcome(statement: &Statement, outcome: &Value) -> Option<Outcome> {
    let Value::Array(parts) = outcome else { return None };
    match statement {
        Statement::Here { .. } | Statement::Left(_) | Statement::Look(_) => {
            let [version, is_here, set_at, status, words, not_before] = parts.as_slice() else { return None };
            let fields = [version, is_here, set_at, status, words].map(text);
            let [version, is_here, set_at, status, words] = fields;
            let state = parse_state([&version?, &is_here?, &set_at?, &status?, &words?])?;
            Some(Outcome::State { state, not_before_ms: text(not_before)?.parse().ok()? })
        }
        Statement::Devices(_) => {
            let device = |seat: &Value| text(seat)?.split('/').nth(1)?.parse().ok();
            let mut devices: Vec<DeviceId> = parts.iter().map(device).collect::<Option<_>>()?;
            devices.sort();
            devices.dedup();
            Some(Outcome::Devices(devices))
        }
        Statement::Revoke { .. } => Some(Outcome::NotBefore(text(parts.first()?)?.parse().ok()?)),
    }
}

/// What a bucket's channel said; `None` if it makes no sense.
pub(crate) fn parse_news(news: &str) -> Option<News> {
    // A user's text comes last, and may hold any character.
    let fields: Vec<&str> = news.splitn(8, '\n').collect();
    match fields.as_slice() {
        ["user", life, user, version, is_here, set_at, status, words] => Some(News::User {
            life: (*life).to_owned(),
            user: parse_user(user)?,
            state: parse_state([version, is_here, set_at, status, words])?,
        }),
        ["revoked", user, not_before] => {
            Some(News::Revoked { user: parse_user(user)?, not_before_ms: not_before.parse().ok()? })
        }
        _ => None,
    }
}

fn parse_state([version, is_here, set_at, status, words]: [&str; 5]) -> Option<UserState> {
    let status = PresenceStatus::try_from(status.parse::<i32>().ok()?).ok()?;
    let look = Look { status, text: words.to_owned(), set_at_ms: set_at.parse().ok()? };
    Some(UserState { version: version.parse().ok()?, is_here: is_here == "1", look })
}

fn text(value: &Value) -> Option<String> {
    value.as_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_understood() {
        let user = UserKey { tenant: "acme".parse().unwrap(), user: "ann".parse().unwrap() };
        let look = Look { status: PresenceStatus::Busy, text: "a\nb\n\nc".into(), set_at_ms: 5 };
        let state = UserState { version: 7, is_here: true, look };
        let expected = News::User { life: "x".into(), user: user.clone(), state };
        assert_eq!(parse_news("user\nx\nacme/ann\n7\n1\n5\n3\na\nb\n\nc"), Some(expected));
        assert_eq!(parse_news("revoked\nacme/ann\n9"), Some(News::Revoked { user, not_before_ms: 9 }));
        for nonsense in ["", "user", "revoked\nacme\n9", "user\nx\nacme/ann\n7\n1\n5\n99\n", "revoked\nacme/ann\n-9"] {
            assert_eq!(parse_news(nonsense), None, "{nonsense:?}");
        }
    }
}
