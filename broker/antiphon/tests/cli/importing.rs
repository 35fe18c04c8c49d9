//! `import`: what comes in, what is refused and by which words, and that a file can be imported again.

use std::{fs, path::Path};

use crate::broker::{Broker, failure};

const HISTORY: &str = r#"{"type":"conversation","id":"tea","owner":"ann","members":["bob",{"user":"cat","role":"admin"}],"title":"Tea"}
{"type":"conversation","id":"two","kind":"direct","owner":"ann","members":["bob"]}
{"type":"message","conversation":"tea","id":"1","sender":"ann","time_ms":1500000000000,"text":"hi"}
{"type":"message","conversation":"two","id":"1","sender":"bob","time_ms":1500000000500,"text":"just us"}
{"type":"message","conversation":"tea","id":"2","sender":"gone","time_ms":1500000001000,"text":"helo","reply_to":"1"}

{"type":"message.edit","conversation":"tea","id":"3","of":"2","sender":"gone","time_ms":1500000002000,"text":"hello"}
{"type":"reaction","conversation":"tea","of":"2","sender":"bob","time_ms":1500000003000,"key":"+1"}
{"type":"pin","conversation":"tea","of":"1","sender":"cat","time_ms":1500000003000}
{"type":"cursor","conversation":"tea","user":"bob","read":"1","delivered":"2"}
"#;

fn import(broker: &Broker, file: &Path) -> String {
    broker.run(&["import", file.to_str().unwrap()])
}

fn told(broker: &Broker) -> Vec<serde_json::Value> {
    let lines = broker.run(&["history", "c:tea", "--messages", "--json", "--user", "ann"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_history_comes_in_as_it_was_and_only_once() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 2);
    let file = data.path().join("history.jsonl");
    fs::write(&file, HISTORY).unwrap();
    let first = import(&broker, &file);
    assert_eq!(first, "2 conversations, 6 events imported, 0 there already, 1 cursors, 0 lines refused\n");
    let messages = told(&broker);
    assert_eq!(messages.len(), 2);
    let second = &messages[1];
    assert_eq!((second["time_ms"].as_u64(), second["sender"].as_str()), (Some(1_500_000_001_000), Some("gone")));
    assert_eq!(second["body"].as_str(), Some("hello"));
    let again = import(&broker, &file);
    assert_eq!(again, "2 conversations, 0 events imported, 6 there already, 1 cursors, 0 lines refused\n");
    assert_eq!(told(&broker), messages);
}

#[test]
fn what_cannot_come_in_is_named_by_its_line_and_the_rest_comes_in() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1);
    let file = data.path().join("history.jsonl");
    let wrong = [
        "not JSON",
        r#"{"type":"message","conversation":"tea","id":"9","sender":"ann","time_ms":1500000000000,"colour":"red"}"#,
        r#"{"type":"reaction","conversation":"tea","of":"77","sender":"bob","time_ms":1500000000000,"key":"+1"}"#,
        r#"{"type":"message","conversation":"nowhere","id":"1","sender":"ann","time_ms":99999999999999,"text":"later"}"#,
    ];
    fs::write(&file, format!("{HISTORY}{}\n", wrong.join("\n"))).unwrap();
    let output = broker.command(&["import", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("6 events imported") && printed.contains("4 lines refused"), "{printed}");
    let error = failure(output);
    for said in
        ["line 11: not a JSON object", "line 12: colour", "line 13: of: no message \"77\"", "line 14: ", "clock_skew"]
    {
        assert!(error.contains(said), "{said}: {error}");
    }
    let absent = broker.command(&["import", "/nonexistent"]).output().unwrap();
    assert!(failure(absent).contains("/nonexistent"));
}
