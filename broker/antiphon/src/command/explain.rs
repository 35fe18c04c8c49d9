//! `antiphon explain`: asks the running broker why a user got an event, or not.

use hyper::Method;
use serde_json::Value;

use super::event_line::printable;
use crate::{
    admin::{Question, ask},
    cli::Explain,
    failure::Failure,
};

pub(crate) async fn run(explain: Explain) -> Result<(), Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("tenant", explain.tenant.as_str());
    query.append_pair("log", &explain.log.to_string());
    query.append_pair("seq", &explain.position);
    query.append_pair("user", explain.user.as_str());
    if let Some(event_id) = &explain.event_id {
        query.append_pair("event_id", event_id);
    }
    let target = format!("/explain?{}", query.finish());
    let answer = ask(&explain.connection, Question { method: Method::GET, target: &target, body: None }).await?;
    match explain.json {
        true => println!("{answer}"),
        false => lines(&answer).iter().for_each(|line| println!("{}", printable(line))),
    }
    Ok(())
}

/// The answer for people: the verdict first, then what it follows from.
fn lines(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = vec![format!("{}: {}", text(&answer["verdict"]), text(&answer["message"]))];
    let log = &answer["at_log"];
    if log["error"].is_null() {
        let event = &log["event"];
        lines.push(match event["state"].as_str() {
            Some("stored") => {
                let redacted = if event["redacted"] == true { ", redacted" } else { "" };
                let (kind, sender, id) = (text(&event["kind"]), text(&event["sender"]), text(&event["event_id"]));
                format!("event: {kind} by {sender}, {id}, Unix ms {}{redacted}", event["time_ms"])
            }
            state => format!("event: {}", state.unwrap_or("unknown")),
        });
        lines.push(format!("log: history {}, positions {} to {}", log["epoch"], log["floor"], log["head"]));
        lines.push(format!("user: {}, delivered {}, read {}", standing(log), log["delivered"], log["read"]));
    }
    let inbox = &answer["at_inbox"];
    let said = [("hidden", "hid the event"), ("blocks_sender", "blocked its sender"), ("muted", "muted the log")];
    let said: Vec<_> = said.into_iter().filter(|(field, _)| inbox[field] == true).map(|(_, said)| said).collect();
    if !said.is_empty() {
        lines.push(format!("user: {}", said.join(", ")));
    }
    lines.extend(answer["sessions"].as_array().into_iter().flatten().map(session));
    lines
}

/// What the user may read without a grant.
fn standing(log: &Value) -> String {
    match (&log["member"]["since"], &log["removed_at"], log["refused"].as_str()) {
        (_, Value::Number(at), _) => format!("removed at {at}"),
        (Value::Number(since), ..) => format!("member since {since}, may read from {}", log["reads_from"]),
        (_, _, Some(code)) => format!("no member ({code} without a grant)"),
        _ => format!("may read from {}", log["reads_from"]),
    }
}

fn session(session: &Value) -> String {
    let by = if session["by_gateway"] == true { " by the gateway" } else { "" };
    let granted = if session["granted"] == true { ", has a grant to read" } else { "" };
    let live = match &session["live_from"] {
        Value::Number(from) => format!("live from {from}, {} bytes wait", session["waiting_bytes"]),
        _ => "does not subscribe to the log".to_owned(),
    };
    let device = session["device"].as_str().unwrap_or_default();
    format!("device {device}: connected to shard {}{by}{granted}, {live}", session["shard"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_verdict_comes_first_and_each_device_has_a_line() {
        let event = json!({ "state": "stored", "event_id": "e", "kind": "message", "sender": "ann", "time_ms": 9 });
        let answer = json!({
            "verdict": "sent", "message": "on its way",
            "at_log": {
                "event": event, "epoch": 1, "head": 7, "floor": 2, "reads_from": 3, "refused": null,
                "member": { "role": "member", "since": 3 }, "removed_at": null, "delivered": 4, "read": 3,
            },
            "at_inbox": { "hidden": false, "blocks_sender": true, "muted": true },
            "sessions": [
                { "device": "phone", "shard": 1, "live_from": 5, "waiting_bytes": 88 },
                { "device": "tab", "shard": 0, "live_from": null, "by_gateway": true, "granted": true },
            ],
        });
        let expected = [
            "sent: on its way",
            "event: message by ann, e, Unix ms 9",
            "log: history 1, positions 2 to 7",
            "user: member since 3, may read from 3, delivered 4, read 3",
            "user: blocked its sender, muted the log",
            "device phone: connected to shard 1, live from 5, 88 bytes wait",
            "device tab: connected to shard 0 by the gateway, has a grant to read, does not subscribe to the log",
        ];
        assert_eq!(lines(&answer), expected);
    }

    #[test]
    fn what_an_owner_cannot_say_has_no_line() {
        let failed = json!({ "error": "store_unavailable" });
        let answer = json!({ "verdict": "unknown", "message": "m", "at_log": failed, "at_inbox": failed });
        assert_eq!(lines(&answer), ["unknown: m"]);
        let removed = json!({ "member": null, "removed_at": 4, "refused": "removed" });
        assert_eq!(standing(&removed), "removed at 4");
        let stranger = json!({ "member": null, "removed_at": null, "refused": "not_found" });
        assert_eq!(standing(&stranger), "no member (not_found without a grant)");
    }
}
