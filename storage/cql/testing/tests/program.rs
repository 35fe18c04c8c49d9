//! `antiphon-cassandra` as a shell sees it.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    contact: SocketAddr,
    files: TempDir,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut command = command();
        command.args(arguments).env("TMPDIR", files.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let unknown = SocketAddr::from(([0; 4], 0));
        let mut program = Self { child, input, output, contact: unknown, files };
        assert!(program.line().starts_with("version: Apache Cassandra 5.0."));
        program.contact = program.line().strip_prefix("contact: ").unwrap().parse().unwrap();
        assert_eq!(program.line(), "ready");
        program
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.line()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn answers(&self) -> bool {
        TcpStream::connect(self.contact).is_ok()
    }

    /// It has ended well and left nothing.
    fn has_cleaned_up(mut self) {
        assert!(self.child.wait().unwrap().success());
        assert!(!self.answers());
        assert!(is_empty(self.files.path()));
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_antiphon-cassandra"))
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

#[test]
fn it_obeys_lines_until_there_are_none() {
    let mut program = Program::start(&[]);
    assert_eq!(program.ask("pause 1"), "done");
    assert_eq!(program.ask("resume 1"), "done");
    assert_eq!(program.ask("kill 1"), "done");
    assert!(!program.answers());
    assert_eq!(program.ask("kill 1"), "error: node 1 does not run");
    assert_eq!(program.ask("start 1"), "done");
    assert!(program.answers());
    assert_eq!(program.ask("ring"), "done");
    assert_eq!(program.ask("kill 2"), "error: there are nodes 1 to 1, no node 2");
    assert!(program.ask("burn 1").starts_with("error: there is no action burn"));
    assert!(program.ask("kill").starts_with("error: a command is "));
    drop(program.input.take());
    program.has_cleaned_up();
}

#[test]
fn sigterm_ends_it_well_and_with_sigkill_its_nodes_die_too() {
    let mut program = Program::start(&["--no-stdin"]);
    drop(program.input.take());
    assert!(program.answers());
    program.signal(Signal::TERM);
    program.has_cleaned_up();

    let mut program = Program::start(&[]);
    program.signal(Signal::KILL);
    program.child.wait().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while program.answers() {
        assert!(Instant::now() < deadline, "the node outlived the program that started it");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_the_server_it_says_what_installs_it() {
    let nowhere = tempfile::tempdir().unwrap();
    let output = command().env("ANTIPHON_CASSANDRA", nowhere.path()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("is not installed in") && said.contains("`storage/cql/testing/install` installs it"),
        "{said}"
    );
}
