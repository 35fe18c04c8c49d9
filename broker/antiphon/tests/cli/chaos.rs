//! `serve --chaos`: clients come through the harm, and nobody is harmed who does not develop.

use std::time::Duration;

use antiphon_sdk::{Carrier, Client, Config, From, Item, LogName, Subscription, Trust};

use crate::broker::{ANY_PORTS, Broker, antiphon, command, failure};

/// Far more than a passing run takes.
const PATIENCE: Duration = Duration::from_secs(120);

async fn client(broker: &Broker, user: &str, carrier: Carrier) -> Client {
    let trust = Trust::fingerprint(broker.fact("fingerprint").trim_start_matches("sha256:")).unwrap();
    let token = broker.run(&["token", "--user", user]).trim().to_owned();
    let mut config = Config::new(broker.fact("address").parse().unwrap(), "localhost", trust, token);
    config.carrier = carrier;
    config.fallback = Some(broker.fact("gateway").replacen("http", "ws", 1).parse().unwrap());
    config.connect_timeout = PATIENCE;
    Client::connect(config).await.unwrap()
}

async fn texts(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        if let Item::Event(event) = subscription.next().await.expect("the subscription goes on") {
            texts.push(event.text().unwrap().to_string());
        }
    }
    texts
}

#[tokio::test]
async fn through_lag_disorder_and_cuts_each_message_comes_once_and_in_order() {
    let data = tempfile::tempdir().unwrap();
    let harm = ["--listen", "127.0.0.1:0", "--chaos", "lag=20ms,reorder,cut=200ms,seed=7"];
    let broker = Broker::start_with(data.path(), 2, &harm);
    assert_eq!(broker.fact("chaos"), "lag=20ms,cut=200ms,reorder,seed=7");
    let talk = async {
        let lobby: LogName = "c:lobby".parse().unwrap();
        let ann = client(&broker, "ann", Carrier::WebSocket).await;
        let bob = client(&broker, "bob", Carrier::Quic).await;
        let mut seen_by_bob = bob.subscribe(&lobby, From::Start).await.unwrap();
        let mut seen_by_ann = ann.subscribe(&lobby, From::Start).await.unwrap();
        let mut state = ann.connection_state();
        state.mark_unchanged();
        let (mut sent, mut changes) = (Vec::new(), 0);
        // A cut resets ann's socket, so her state shows when the harm has been done.
        while changes < 2 || sent.len() < 40 {
            let by = if sent.len() % 2 == 0 { &ann } else { &bob };
            let text = format!("message {}", sent.len());
            by.send(&lobby, text.as_str()).await.unwrap();
            sent.push(text);
            if state.has_changed().unwrap() {
                state.mark_unchanged();
                changes += 1;
            }
        }
        assert_eq!(texts(&mut seen_by_bob, sent.len()).await, sent);
        assert_eq!(texts(&mut seen_by_ann, sent.len()).await, sent);
        assert!(seen_by_bob.try_next().is_none() && seen_by_ann.try_next().is_none());
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("the talk comes to its end");
    assert!(broker.terminate().success());
}

#[test]
fn what_cannot_be_done_is_refused() {
    let data = tempfile::tempdir().unwrap();
    for (parts, complaint) in [("lag=0ms", "1ms to 10s"), ("loss=1", "unknown part"), ("cut=2m", "a time such as")] {
        let output = command(data.path(), &["serve", "--chaos", parts]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = failure(output);
        assert!(text.contains(complaint), "{text}");
    }
    let file = data.path().join("antiphon.toml");
    let issuer = "[[issuers]]\nissuer = \"https://id.example\"\ntenants = [\"t\"]\nkey_set = \"keys.json\"\n";
    std::fs::write(&file, format!("listen = \"127.0.0.1:0\"\n{issuer}")).unwrap();
    for verb in ["serve", "check-config"] {
        let output = antiphon().args([verb, "--chaos", "lag=1s", "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = failure(output);
        assert!(text.contains("development mode only"), "{text}");
    }
}

#[test]
fn a_taken_address_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&folder.path().join("data"), 1);
    let args = ["serve", "--chaos", "lag=1ms", "--listen", broker.fact("address")];
    let second = command(&folder.path().join("other"), &[&args, &ANY_PORTS[..]].concat()).output().unwrap();
    let text = failure(second);
    assert!(text.contains("in use") && text.contains(broker.fact("address")), "{text}");
}
