//! `copy`: the logs move to a real cluster and back, and clients notice nothing.

use std::{fmt::Write as _, fs, path::Path};

use antiphon_cql_testing::{Cluster, Options};

use crate::broker::{Broker, Printing, antiphon, command, exchange, failure, success};

/// The configuration of a broker whose logs may be on the cluster.
fn configuration(folder: &Path, cluster: &Cluster, engine: &str) -> String {
    let mut text = "development = true\n[store]\n".to_owned();
    if engine != "embedded" {
        let points: Vec<String> = cluster.contact_points().iter().map(|point| format!("\"{point}\"")).collect();
        writeln!(text, "engine = \"{engine}\"\ncontact_points = [{}]", points.join(", ")).unwrap();
        writeln!(text, "replication_factor = 1\naccept = [\"low-replication\"]").unwrap();
    }
    let path = folder.join(format!("{engine}.toml"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Sends over HTTP under a key that makes repetitions the same send. Status and body.
fn post(broker: &Broker, token: &str, key: &str, body: &str) -> (u16, String) {
    let headers =
        format!("Authorization: Bearer {token}\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\n");
    let answer = exchange(broker.fact("gateway"), "POST /api/v1/logs/c:lobby/events", &headers, body).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn position(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["position"].to_string()
}

fn digest(copied: &str) -> &str {
    copied.lines().find(|line| line.starts_with("digest: ")).unwrap()
}

#[test]
fn clients_go_on_after_a_move_and_after_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cluster = Cluster::start(Options::default()).unwrap();
    let (there, here) =
        (configuration(folder.path(), &cluster, "cassandra"), configuration(folder.path(), &cluster, "embedded"));
    let copy = |from, to| command(&data, &["copy", "--from", from, "--to", to, "--config", &there]).output().unwrap();

    let broker = Broker::start_with(&data, 2, &["--config", &here]);
    let address = broker.fact("address").to_owned();
    let token = success(command(&data, &["token", "--user", "ann"]).output().unwrap()).trim().to_owned();
    broker.run(&["pub", "c:lobby", "first", "--user", "ann"]);
    let text = r#"{"text":"kept"}"#;
    let (status, sent) = post(&broker, &token, "old", text);
    assert_eq!(status, 201, "{sent}");
    let mut sub = Printing::start(&mut broker.command(&["sub", "c:lobby", "--from", "0", "--count", "4"]));
    assert_eq!([sub.line(), sub.line()].join(" "), "1-1 ann: first 1-2 ann: kept");
    let in_use = failure(copy("embedded", "scylla"));
    assert!(in_use.contains("in use by another process"), "{in_use}");
    broker.kill();

    let missing = failure(copy("embedded", "scylla"));
    assert!(missing.contains("antiphon schema apply"), "{missing}");
    success(antiphon().args(["schema", "apply", "--config", &there]).output().unwrap());
    let same = failure(copy("scylla", "scylla"));
    assert!(same.contains("--to: is where everything is already"), "{same}");
    let copied = success(copy("embedded", "scylla"));
    let again = failure(copy("embedded", "scylla"));
    assert!(again.contains("holds logs already"), "{again}");

    let broker = Broker::start_with(&data, 2, &["--listen", &address, "--config", &there]);
    let (status, repeated) = post(&broker, &token, "old", text);
    assert_eq!((status, position(&repeated)), (200, position(&sent)), "a repeated send is recognised");
    broker.run(&["pub", "c:lobby", "on the cluster", "--user", "ann"]);
    assert_eq!(sub.line(), "1-3 ann: on the cluster", "the session came back by itself");
    assert!(broker.terminate().success());

    let occupied = failure(copy("scylla", "embedded"));
    assert!(occupied.contains("holds logs already"), "{occupied}");
    let before = folder.path().join("before");
    fs::create_dir(&before).unwrap();
    for name in ["format", "boot", "wal", "index"] {
        fs::rename(data.join(name), before.join(name)).unwrap();
    }
    let back = success(copy("scylla", "embedded"));
    assert_ne!(digest(&copied), digest(&back), "a message more");
    let broker = Broker::start_with(&data, 2, &["--listen", &address, "--config", &here]);
    let (status, repeated) = post(&broker, &token, "old", text);
    assert_eq!((status, position(&repeated)), (200, position(&sent)));
    broker.run(&["pub", "c:lobby", "home", "--user", "ann"]);
    assert_eq!(sub.rest(), ["1-4 ann: home"]);
    assert_eq!(broker.run(&["history", "c:lobby"]).lines().count(), 4);
}
