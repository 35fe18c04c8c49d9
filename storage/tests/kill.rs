//! A process that is killed at work: what it was told to be stored is there when the directory is opened again.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use antiphon_storage::{
    EventLog, Op, Outcome, Token,
    conformance::{
        Backend, Session,
        rows::{append, log, read, row},
    },
    embedded::verify,
};
use support::{Open, small, with_each_writer, writer_by_name, writer_name};

const LOGS: u64 = 8;
const DIR: &str = "ANTIPHON_TEST_KILL_DIR";
const WRITER: &str = "ANTIPHON_TEST_KILL_WRITER";
/// Begins the lines of the child that say what was acknowledged; the test harness writes others.
const MARK: &str = "stored ";

/// The child: keeps an append to every log under way and says which were acknowledged, until it is killed.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    writer_by_name(&std::env::var(WRITER).unwrap());
    let mut store = Open::new(Path::new(&std::env::var(DIR).unwrap()), small(2)).unwrap();
    let mut heads: Vec<u64> = (0..LOGS).map(|n| head(&mut store, n)).collect();
    let mut completions = Vec::new();
    for (n, head) in heads.iter().enumerate() {
        store.submit(append(n as u64, [head + 1]), Token(n as u64));
    }
    loop {
        store.poll_completions(&mut completions);
        let mut out = std::io::stdout().lock();
        for completion in completions.drain(..) {
            assert_eq!(completion.result, Ok(Outcome::Done));
            let n = completion.token.0;
            heads[n as usize] += 1;
            writeln!(out, "{MARK}{n} {}", heads[n as usize]).unwrap();
            store.submit(append(n, [heads[n as usize] + 1]), completion.token);
        }
        out.flush().unwrap();
        store.poll_completions(&mut completions);
        if completions.is_empty() {
            store.wait();
        }
    }
}

fn head(store: &mut Open, n: u64) -> u64 {
    store.submit(Op::Load { log: log(n) }, Token(0));
    let mut completions = Vec::new();
    while completions.is_empty() {
        store.wait();
        store.poll_completions(&mut completions);
    }
    match completions.remove(0).result {
        Ok(Outcome::Loaded(loaded)) => loaded.head,
        other => panic!("{other:?}"),
    }
}

/// Lets a child work until it acknowledged `count` appends, kills it and returns the last of each log.
fn work_and_be_killed(dir: &Path, count: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .envs([(DIR, dir.to_str().unwrap()), (WRITER, writer_name())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stored = vec![0; LOGS as usize];
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut note = |line: String| {
        // The harness may have begun the line.
        if let Some((n, head)) = line.split_once(MARK).and_then(|(_, rest)| rest.split_once(' '))
            && let (Ok(n), Ok(head)) = (n.parse::<usize>(), head.parse())
        {
            stored[n] = head;
        }
    };
    lines.by_ref().take(count).for_each(&mut note);
    child.kill().unwrap();
    // The last line may be cut.
    let rest: Vec<String> = lines.collect();
    let whole = rest.len().saturating_sub(1);
    rest.into_iter().take(whole).for_each(&mut note);
    assert!(!child.wait().unwrap().success());
    stored
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    with_each_writer(|| {
        let dir = tempfile::tempdir().unwrap();
        for count in [40, 1, 300, 7, 1000] {
            let stored = work_and_be_killed(dir.path(), count + 20);
            let mut session = Session::new(Box::new(Open::new(dir.path(), small(1)).unwrap()));
            for (n, stored) in (0..).zip(&stored) {
                let Ok(Outcome::Loaded(loaded)) = session.perform(Op::Load { log: log(n) }) else { panic!("log {n}") };
                assert!(loaded.head >= *stored, "log {n}: {} of {stored} are left", loaded.head);
                let rows = (1..=loaded.head).map(row).collect();
                assert_eq!(session.perform(read(n, 1, u64::MAX)), Ok(Outcome::Rows(rows)), "log {n}");
            }
            assert!(stored.iter().sum::<u64>() > 0);
        }
        assert_eq!(verify(dir.path()).unwrap().findings, []);
    });
}
