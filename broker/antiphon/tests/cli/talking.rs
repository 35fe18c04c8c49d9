//! `token`, `pub`, `sub`, `history` against a broker that lives, dies and comes back.

use crate::broker::{Broker, Printing, antiphon, failure};

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
