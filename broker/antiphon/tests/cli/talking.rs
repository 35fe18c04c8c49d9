//! `token`, `pub`, `sub`, `history` against a broker that lives, dies and comes back.

use crate::broker::{Broker, Printing, antiphon, api_get, failure};

#[test]
fn what_is_published_is_in_the_history_and_reaches_subscribers_once() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    assert_eq!(broker.run(&["pub", "c:lobby", "hello", "--user", "ann"]), "1-1\n");
    let mut sub = Printing::start(&mut broker.command(&["sub", "c:lobby", "--from", "0", "--count", "2"]));
    assert_eq!(sub.line(), "1-1 ann: hello");
    assert_eq!(broker.run(&["pub", "c:lobby", "again", "--user", "bob"]), "1-2\n");
    assert_eq!(sub.rest(), ["1-2 bob: again"]);
    assert_eq!(broker.run(&["history", "c:lobby"]), "1-1 ann: hello\n1-2 bob: again\n");
    assert_eq!(broker.run(&["history", "c:lobby", "--last", "1"]), "1-2 bob: again\n");
    let json: serde_json::Value =
        serde_json::from_str(&broker.run(&["history", "c:lobby", "--last", "1", "--json"])).unwrap();
    assert_eq!((json["position"].as_str(), json["body"].as_str()), (Some("1-2"), Some("again")));
}

#[test]
fn the_history_is_read_from_a_date_on_or_before_it() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    for text in ["one", "two", "three"] {
        broker.run(&["pub", "c:lobby", text, "--user", "ann"]);
    }
    let lines = broker.run(&["history", "c:lobby", "--json"]);
    let times_ms: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time_ms"].as_u64().unwrap())
        .collect();
    // Each came from a process of its own, so their times differ unless the clock is a very slow one.
    let at = times_ms[1].to_string();
    let later: Vec<usize> = (0..3).filter(|n| times_ms[*n] >= times_ms[1]).collect();
    let all = ["1-1 ann: one\n", "1-2 ann: two\n", "1-3 ann: three\n"];
    let (before, since) = (all[..later[0]].concat(), all[later[0]..].concat());
    for more in [&[][..], &["--messages"]] {
        let history = |args: &[&str]| broker.run(&[&["history", "c:lobby"], args, more].concat());
        assert_eq!(history(&["--at", &at]), since);
        assert_eq!(history(&["--at", &at, "--last", "9"]), before);
        assert_eq!(history(&["--at", &at, "--from", "3"]), all[2]);
        assert_eq!(history(&["--at", "2020-01-01T00:00:00Z"]), all.concat());
        assert_eq!(history(&["--at", "2999-01-01T00:00:00+01:00"]), "");
        assert_eq!(history(&["--at", "2999-01-01T00:00:00+01:00", "--last", "1"]), all[2]);
    }
    let token = broker.run(&["token", "--user", "ann"]);
    let seqs = |what: &str, query: &str| -> Vec<u64> {
        let answer = api_get(&broker, token.trim(), &format!("/api/v1/logs/c:lobby/{what}?{query}"));
        let rows = answer["rows"].as_array().cloned();
        let views = answer["messages"].as_array().map(|views| views.iter().map(|view| view["row"].clone()).collect());
        let rows: Vec<serde_json::Value> = rows.or(views).unwrap_or_default();
        rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect()
    };
    let later: Vec<u64> = later.iter().map(|n| *n as u64 + 1).collect();
    for what in ["events", "messages"] {
        assert_eq!(seqs(what, &format!("at_ms={at}")), later);
        assert_eq!(seqs(what, &format!("at_ms={at}&backward=true")), (1..later[0]).rev().collect::<Vec<_>>());
        assert_eq!(seqs(what, "at_ms=1&from=2&limit=1"), [2]);
    }
    let refused = api_get(&broker, token.trim(), "/api/v1/logs/c:lobby/events?at_ms=yesterday");
    assert_eq!((refused["code"].as_str(), refused["field"].as_str()), (Some("malformed"), Some("at_ms")));
    let output = broker.command(&["history", "c:lobby", "--at", "yesterday"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(failure(output).contains("RFC 3339"));
}

#[test]
fn a_subscriber_survives_crashes_of_the_broker_without_missing_or_repeating_a_line() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(data.path(), 2);
    let address = broker.fact("address").to_owned();
    let mut sub = Printing::start(&mut broker.command(&["sub", "c:lobby", "--from", "0", "--count", "12"]));
    for round in 0..4 {
        for n in 0..3 {
            let text = format!("{round}.{n}");
            broker.run(&["pub", "c:lobby", &text, "--user", "ann"]);
            // The first of each round is read before the crash, the others may be on either side of it.
            if n == 0 {
                assert_eq!(sub.line(), format!("1-{} ann: {text}", round * 3 + 1));
                continue;
            }
        }
        let expected: Vec<String> = (1..3).map(|n| format!("1-{} ann: {round}.{n}", round * 3 + 1 + n)).collect();
        broker.kill();
        broker = Broker::start_at(data.path(), 2, &address);
        assert_eq!([sub.line(), sub.line()], expected[..]);
    }
    assert!(sub.rest().is_empty());
}

#[test]
fn a_token_of_the_data_directory_opens_the_lobby_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1);
    let token = broker.run(&["token", "--user", "ann"]);
    let token = token.trim();
    assert_eq!(broker.run(&["pub", "c:lobby", "hi", "--token", token]), "1-1\n");
    let refused = failure(broker.command(&["pub", "c:secret", "hi", "--token", token]).output().unwrap());
    assert!(refused.contains("no such log"), "{refused}");
    let forged = format!("{}x", &token[..token.len() - 1]);
    let refused = failure(broker.command(&["pub", "c:lobby", "hi", "--token", &forged]).output().unwrap());
    assert!(refused.contains("token"), "{refused}");
    assert!(!refused.contains(&forged[20..60]), "an error never repeats a token");
}

#[test]
fn a_message_cannot_forge_a_line_or_steer_the_terminal() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1);
    broker.run(&["pub", "c:lobby", "one\n1-2 bob: forged\x1b[2J", "--user", "ann"]);
    let history = broker.run(&["history", "c:lobby"]);
    assert_eq!(history.lines().count(), 1);
    assert!(!history.contains('\x1b'));
}

#[test]
fn without_a_broker_a_command_says_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let output = antiphon().args(["pub", "c:lobby", "hi", "--data"]).arg(data.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(failure(output).contains("start the broker first"));
    let output = antiphon().args(["pub", "lobby", "hi"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(failure(output).contains("c:<conversation>"));
}
