//! A broker process on a temporary data directory, and the commands that talk to it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
};

/// For every listener but that for clients.
pub(crate) const ANY_PORTS: [&str; 6] =
    ["--admin", "127.0.0.1:0", "--trunk", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];

/// A running broker. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    facts: BTreeMap<String, String>,
    data: PathBuf,
}

/// `antiphon`, without anything of the environment that could steer it.
pub(crate) fn antiphon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANTIPHON_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

impl Broker {
    /// Starts on ports of the system's choice and waits until it is ready.
    pub(crate) fn start(data: &Path, shards: u16) -> Self {
        Self::start_at(data, shards, "127.0.0.1:0")
    }

    pub(crate) fn start_at(data: &Path, shards: u16, listen: &str) -> Self {
        Self::start_with(data, shards, &["--listen", listen])
    }

    pub(crate) fn start_with(data: &Path, shards: u16, args: &[&str]) -> Self {
        let mut child = antiphon()
            .args(["serve", "--log-filter", "warn"])
            .args(ANY_PORTS)
            .args(args)
            .args(["--shards", &shards.to_string(), "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let facts = read_facts(child.stdout.take().unwrap());
        Self { child, facts, data: data.to_owned() }
    }

    pub(crate) fn fact(&self, name: &str) -> &str {
        &self.facts[name]
    }

    /// Ends the process without a word, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status that follows.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }

    /// A command on this broker's data directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(&self.data, args)
    }

    /// Runs a command that must succeed, and gives its output.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        success(self.command(args).output().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = antiphon();
    command.args(args).arg("--data").arg(data);
    command
}

/// The output of a command that must have succeeded.
pub(crate) fn success(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The complaint of a command that must have failed.
pub(crate) fn failure(output: Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn read_facts(stdout: ChildStdout) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut lines = BufReader::new(stdout).lines();
    for line in &mut lines {
        let line = line.unwrap();
        if line == "ready" {
            // The rest is read to its end, so that the broker never waits for a reader.
            std::thread::spawn(move || lines.for_each(drop));
            return facts;
        }
        if let Some((name, value)) = line.split_once(": ") {
            facts.insert(name.to_owned(), value.to_owned());
        }
    }
    panic!("the broker ended before it was ready; it said {facts:?}");
}

/// A command that keeps printing, such as `sub`.
pub(crate) struct Printing {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Printing {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line, however long it takes.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Everything up to the end of the process.
    pub(crate) fn rest(mut self) -> Vec<String> {
        let rest = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The admin listener's answer.
pub(crate) fn http_get(broker: &Broker, path: &str) -> String {
    exchange(broker.fact("admin"), &format!("GET {path}"), "", "").unwrap()
}

/// The answer of the gateway to a request of this token's user.
pub(crate) fn api_get(broker: &Broker, token: &str, path: &str) -> serde_json::Value {
    let headers = format!("Authorization: Bearer {token}\r\n");
    let answer = exchange(broker.fact("gateway"), &format!("GET {path}"), &headers, "").unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// One HTTP/1.1 exchange. `request` is method and path; `headers` end their lines.
pub(crate) fn exchange(address: &str, request: &str, headers: &str, body: &str) -> io::Result<String> {
    let address = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
