//! `serve`, `check-config`, `backup`, `restore`, `verify`: what an operator does.

use crate::broker::{ANY_PORTS, Broker, Printing, antiphon, command, failure, http_get, success};

#[test]
fn any_number_of_shards_opens_the_data_of_any_other() {
    let data = tempfile::tempdir().unwrap();
    let mut expected = String::new();
    for (n, shards) in [2, 1, 4, 3].into_iter().enumerate() {
        let broker = Broker::start(data.path(), shards);
        assert_eq!(broker.run(&["history", "c:lobby"]), expected, "with {shards} shards");
        broker.run(&["pub", "c:lobby", &format!("with {shards}"), "--user", "ann"]);
        expected += &format!("1-{} ann: with {shards}\n", n + 1);
        broker.kill();
    }
}

#[test]
fn sigterm_drains_and_ends_well() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    let address = broker.fact("address").to_owned();
    broker.run(&["pub", "c:lobby", "before", "--user", "ann"]);
    let mut sub = Printing::start(&mut broker.command(&["sub", "c:lobby", "--from", "0", "--count", "2"]));
    assert_eq!(sub.line(), "1-1 ann: before");
    assert!(broker.terminate().success());
    let broker = Broker::start_at(data.path(), 2, &address);
    broker.run(&["pub", "c:lobby", "after", "--user", "ann"]);
    assert_eq!(sub.rest(), ["1-2 ann: after"], "the session came back by itself");
}

#[test]
fn a_backup_of_a_running_broker_restores_in_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, restored) =
        (folder.path().join("data"), folder.path().join("backup"), folder.path().join("restored"));
    let broker = Broker::start(&data, 2);
    for n in 0..20 {
        broker.run(&["pub", "c:lobby", &n.to_string(), "--user", "ann"]);
    }
    broker.run(&["backup", backup.to_str().unwrap()]);
    broker.run(&["pub", "c:lobby", "after the backup", "--user", "ann"]);
    let again = failure(broker.command(&["backup", backup.to_str().unwrap()]).output().unwrap());
    assert!(again.contains("not empty"), "{again}");
    broker.kill();

    let verified = success(antiphon().arg("verify").arg(&backup).output().unwrap());
    assert!(verified.contains("rows"), "{verified}");
    success(command(&restored, &["restore", backup.to_str().unwrap()]).output().unwrap());
    let broker = Broker::start(&restored, 2);
    let history = broker.run(&["history", "c:lobby"]);
    let bodies: Vec<&str> = history.lines().filter_map(|line| line.split_once(": ")).map(|(_, body)| body).collect();
    assert_eq!(bodies, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(history.lines().all(|line| !line.starts_with("1-")), "positions belong to a new epoch");
}

#[test]
fn explain_says_why_a_user_got_an_event_or_not() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    broker.run(&["pub", "c:lobby", "hello", "--user", "ann"]);
    let why = |position: &str, user: &str| broker.run(&["explain", "c:lobby", position, user]);
    // What opens the lobby is a grant of the token, and nobody is here with one.
    assert!(why("1", "bob").starts_with("refused: the user is no member"), "{}", why("1", "bob"));
    assert!(why("2", "bob").starts_with("no_such_event: there is no such event: the log ends with position 1"));
    assert!(why("2-1", "ann").starts_with("other_event: "));
    let sub = ["sub", "c:lobby", "--from", "0", "--user", "bob", "--device", "phone"];
    let mut sub = Printing::start(&mut broker.command(&sub));
    assert_eq!(sub.line(), "1-1 ann: hello");
    let answer = why("1-1", "bob");
    assert!(answer.starts_with("before_subscription: "), "{answer}");
    assert!(answer.contains("\nevent: message by ann, "), "{answer}");
    assert!(answer.contains("\ndevice phone: connected to shard ") && answer.contains(", live from 2, "), "{answer}");
    broker.run(&["pub", "c:lobby", "again", "--user", "ann"]);
    assert_eq!(sub.line(), "1-2 ann: again");
    let json: serde_json::Value =
        serde_json::from_str(&broker.run(&["explain", "c:lobby", "2", "bob", "--json"])).unwrap();
    assert!(["sent", "delivered"].contains(&json["verdict"].as_str().unwrap()), "{json}");
    let id = json["at_log"]["event"]["event_id"].as_str().unwrap();
    assert!(broker.run(&["explain", "c:lobby", "1", "bob", "--event-id", id]).starts_with("other_event: "));
    let refused = failure(broker.command(&["explain", "c:lobby", "one", "bob"]).output().unwrap());
    assert!(refused.contains("a position such as 5"), "{refused}");
}

#[test]
fn one_broker_to_a_data_directory_and_to_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let broker = Broker::start(&data, 1);
    let second = command(&data, &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).output().unwrap();
    assert!(failure(second).contains("in use"));
    let second = command(&other, &[&["serve", "--listen", broker.fact("address")], &ANY_PORTS[..]].concat()).output();
    assert!(failure(second.unwrap()).contains("in use"));
}

#[test]
fn beyond_loopback_only_with_real_keys() {
    let data = tempfile::tempdir().unwrap();
    let output = command(data.path(), &["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = failure(output);
    assert!(complaint.contains("listen") || complaint.contains("issuers"), "{complaint}");
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("antiphon.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\ndevelopment = true\nspeed = 11\n").unwrap();
    let output = antiphon().args(["check-config", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(failure(output).contains("speed"));
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\ndevelopment = true\n").unwrap();
    success(antiphon().args(["check-config", "--config"]).arg(&file).output().unwrap());
}

#[test]
fn health_readiness_and_metrics_answer() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    assert!(http_get(&broker, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http_get(&broker, "/readyz").starts_with("HTTP/1.1 200"));
    broker.run(&["pub", "c:lobby", "hi", "--user", "ann"]);
    // Shards publish once a second, and the space is looked up meanwhile; one of the next scrapes has the numbers.
    let is_complete = || {
        let text = http_get(&broker, "/metrics");
        let appended = |line: &str| line.starts_with("antiphon_events_appended_total") && line.ends_with(" 1");
        text.lines().any(appended) && text.contains("\nantiphon_store_files_bytes ")
    };
    while !is_complete() {
        std::thread::yield_now();
    }
    let text = http_get(&broker, "/metrics");
    let shows = |name: &str| text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    assert!(shows("antiphon_build_info{") && shows("antiphon_ready ") && shows("antiphon_store_sync_seconds_count{"));
    assert!(shows("antiphon_store_free_bytes ") && shows("antiphon_certificate_expires_seconds "), "{text}");
    assert!(text.contains("antiphon_not_ready{reason=\"draining\"} 0"), "{text}");
    assert!(shows("antiphon_loop_busy_us_total{") && shows("antiphon_loop_turn_us_max{"), "{text}");
}
