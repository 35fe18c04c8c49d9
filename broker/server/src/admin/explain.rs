//! `GET /explain`: why a user got an event, or not. The answer of the shards as JSON, with a sentence for people.

use std::{future::Future, pin::Pin, time::Duration};

use antiphon_core::{
    claims::Scope,
    explain::{AtInbox, AtLog, AtSession, Explanation, Found, Question, Verdict},
};
use antiphon_protocol::{ErrorCode, Position, TenantId};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Admin,
    access::{self, Bearer},
    query::Query,
    response::{Answer, Refusal, json_answer},
};

/// Longest wait for the shards; a log that is not in memory has to be read first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the shards. `None`: the broker stops.
pub type ExplainFn = Box<dyn Fn(Question) -> ExplainFuture + Send + Sync>;
/// The question under way.
pub type ExplainFuture = Pin<Box<dyn Future<Output = Option<Explanation>> + Send>>;

pub(super) async fn answer<B>(admin: &Admin, request: &Request<B>, now_ms: u64) -> Result<Answer, Refusal> {
    let bearer = access::require(admin, request.headers(), now_ms, &[Scope::AdminRead, Scope::AdminWrite])?;
    let question = question(request.uri().query().unwrap_or_default(), bearer)?;
    let late = |what| Refusal::new(ErrorCode::Overloaded, what);
    let asked = timeout(ANSWER_TIMEOUT, (admin.explain)(question)).await;
    let explanation = asked.map_err(|_| late("the shards have not answered in ten seconds"))?;
    let explanation = explanation.ok_or_else(|| late("the broker stops"))?;
    Ok(json_answer(StatusCode::OK, &to_json(&explanation)))
}

/// What the query asks. An issuer's bearer asks about its own tenant only.
fn question(query: &str, bearer: Bearer) -> Result<Question, Refusal> {
    let mut query = Query::read(query, &["tenant", "log", "seq", "event_id", "user"])?;
    let tenant = query.optional("tenant", str::parse::<TenantId>)?;
    let tenant = match (bearer, tenant) {
        (Bearer::Operator, tenant) => tenant.ok_or_else(|| Refusal::field("tenant", "expected whose data it is"))?,
        (Bearer::Issued(own), Some(asked)) if own != asked => {
            return Err(Refusal::new(ErrorCode::Forbidden, "the token is of another tenant"));
        }
        (Bearer::Issued(own), _) => own,
    };
    let (epoch, seq) = query.required("seq", "a position such as 5 or 1-5", position)?;
    Ok(Question {
        ticket: 0,
        tenant,
        log: query.required("log", "the log's name, such as c:lobby", str::parse)?,
        seq,
        epoch,
        event_id: query.optional("event_id", str::parse)?,
        user: query.required("user", "the user's id", str::parse)?,
    })
}

/// `5`, or `1-5` with the history generation.
fn position(text: &str) -> Result<(Option<u32>, u64), &'static str> {
    let expected = "expected a position such as 5 or 1-5";
    match text.parse::<Position>() {
        Ok(position) => Ok((Some(position.epoch), position.seq)),
        Err(_) => text.parse().map(|seq| (None, seq)).map_err(|_| expected),
    }
}

fn to_json(explanation: &Explanation) -> Value {
    let (question, verdict) = (&explanation.question, explanation.verdict());
    json!({
        "verdict": verdict.word(),
        "code": verdict.code().map(ErrorCode::code),
        "message": sentence(explanation, verdict),
        "tenant": question.tenant.as_str(),
        "log": question.log.to_string(),
        "seq": question.seq,
        "user": question.user.as_str(),
        "at_log": explanation.log.as_ref().map_or_else(|code| failed(*code), at_log),
        "at_inbox": explanation.inbox.as_ref().map_or_else(|code| failed(*code), at_inbox),
        "sessions": explanation.sessions.iter().map(at_session).collect::<Vec<_>>(),
    })
}

fn failed(code: ErrorCode) -> Value {
    json!({ "error": code.code() })
}

fn at_log(log: &AtLog) -> Value {
    let event = match &log.event {
        Found::NotYet => json!({ "state": "not_yet" }),
        Found::Gone => json!({ "state": "gone" }),
        Found::Unreadable(code) => json!({ "state": "unreadable", "error": code.code() }),
        Found::Event(event) => json!({
            "state": "stored",
            "event_id": event.event_id.to_string(),
            "kind": event.kind.name(),
            "sender": event.sender,
            "time_ms": event.time_ms,
            "redacted": event.is_redacted,
        }),
    };
    let member = log.member.map(|member| json!({ "role": role(member.role), "since": member.joined_seq }));
    json!({
        "event": event,
        "epoch": log.epoch,
        "head": log.head,
        "floor": log.floor,
        "reads_from": log.reads_from.ok(),
        "refused": log.reads_from.err().map(ErrorCode::code),
        "member": member,
        "removed_at": log.removed_at,
        "deleted": log.is_deleted,
        "blocked": log.is_blocked,
        "delivered": log.delivered,
        "read": log.read,
    })
}

fn role(role: antiphon_protocol::control::Role) -> String {
    format!("{role:?}").to_ascii_lowercase()
}

fn at_inbox(inbox: &AtInbox) -> Value {
    json!({
        "hidden": inbox.is_hidden,
        "blocks_sender": inbox.blocks_sender,
        "muted": inbox.is_muted,
        "tokens_not_before_ms": inbox.tokens_not_before_ms,
    })
}

fn at_session(session: &AtSession) -> Value {
    json!({
        "device": session.device.as_str(),
        "session_id": session.session_id.to_string(),
        "shard": session.shard.0,
        "by_gateway": session.is_on_trunk,
        "follows": session.follows,
        "granted": session.is_granted,
        "live_from": session.live_from,
        "waiting_bytes": session.waiting_bytes,
        "undelivered": session.has_undelivered,
    })
}

/// The answer for people.
fn sentence(explanation: &Explanation, verdict: Verdict) -> String {
    let none = |code: ErrorCode| format!("the broker could not look: {}", code.code());
    let log = match &explanation.log {
        Ok(log) => log,
        Err(code) => return none(*code),
    };
    match verdict {
        Verdict::Unknown(code) => none(code),
        Verdict::NoSuchEvent => format!("there is no such event: the log ends with position {}", log.head),
        Verdict::OtherEvent => format!("the position holds another event, or is not of history {}", log.epoch),
        Verdict::Expired => format!("retention has removed it: the log begins with position {}", log.floor),
        Verdict::Refused(_) => refused(log, explanation.question.seq),
        Verdict::BeforeJoining => match log.reads_from {
            Ok(from) => format!("the user joined later and may read from position {from} on"),
            Err(_) => "the user may not read it".to_owned(),
        },
        Verdict::Hidden => "the user hid it".to_owned(),
        Verdict::Read => format!("the user got it, and has read up to position {}", log.read),
        Verdict::Delivered => {
            format!("a device of the user got it: it says that it has everything up to position {}", log.delivered)
        }
        Verdict::NotConnected => "no device of the user is connected; one that comes back gets it".to_owned(),
        Verdict::NotSubscribed => "devices are connected, but none that may read the log subscribes to it".to_owned(),
        Verdict::BeforeSubscription => {
            "devices subscribe from a later position on; they had to ask for it, and none says that it has it"
                .to_owned()
        }
        Verdict::Sent => "it was for a live subscription; no device has said yet that it has it".to_owned(),
    }
}

fn refused(log: &AtLog, seq: u64) -> String {
    let now = match log.removed_at {
        Some(seq) => format!("the user was removed at position {seq} and may read nothing of the log any more"),
        None if log.is_deleted => "the conversation was deleted".to_owned(),
        None => "the user is no member, and no connected device has a grant to read the log".to_owned(),
    };
    match log.delivered {
        delivered if delivered >= seq => format!("{now}; earlier a device said that it has position {delivered}"),
        _ => now,
    }
}
