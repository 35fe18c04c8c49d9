//! A Redis of a test's own: its own port, its own folder, nothing kept, killed when dropped.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test binary uses its own part")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Another process may take a port that was free a moment ago.
const PORTS_TRIED: usize = 10;

pub struct Server {
    child: Option<Child>,
    pub port: u16,
    arguments: Vec<String>,
    dir: TempDir,
}

impl Server {
    /// Without TLS, not a cluster.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With further arguments, in which `{port}` and `{dir}` stand for this server's.
    pub fn with(arguments: &[&str]) -> Self {
        Self::prepared(arguments, |_| {})
    }

    /// The same, after `prepare` has put files into its folder.
    pub fn prepared(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self { child: None, port: 0, arguments, dir };
        for _ in 0..PORTS_TRIED {
            server.port = free_port();
            if server.begin() {
                return server;
            }
        }
        panic!(
            "redis-server does not start: {}",
            fs::read_to_string(server.dir.path().join("log")).unwrap_or_default()
        );
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// False if its port was taken.
    fn begin(&mut self) -> bool {
        let dir = self.dir.path().to_str().unwrap().to_owned();
        let fill = |argument: &String| argument.replace("{port}", &self.port.to_string()).replace("{dir}", &dir);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", &dir]);
        if !self.arguments.iter().any(|argument| argument == "--port") {
            command.args(["--port", &self.port.to_string()]);
        }
        command.args(self.arguments.iter().map(fill)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("redis-server is not in PATH ({error}): install Debian's redis-server, or run ./test, which does")
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ready to accept connections") {
            if lines.read_line(&mut said).unwrap_or(0) == 0 {
                child.wait().unwrap();
                fs::write(self.dir.path().join("log"), said).unwrap();
                return false;
            }
        }
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        self.child = Some(child);
        true
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again on the same port, without data.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.begin() {
            assert!(Instant::now() < deadline, "port {} stays taken", self.port);
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// One command without spaces in its arguments, on a connection of its own; its answer.
    pub fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three nodes that share the slots.
pub fn cluster() -> Vec<Server> {
    let node = |_| {
        let bus = free_port().to_string();
        Server::with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus])
    };
    let nodes: Vec<Server> = (0..3).map(node).collect();
    for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        assert!(node.command(&format!("CLUSTER ADDSLOTSRANGE {slots}")).contains("+OK"));
        let bus = |node: &Server| node.arguments.last().unwrap().clone();
        let met = node.command(&format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[0].port, bus(&nodes[0])));
        assert!(met.contains("+OK"), "{met}");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_whole = |node: &Server| {
        let info = node.command("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !nodes.iter().all(is_whole) {
        assert!(Instant::now() < deadline, "the cluster does not form: {}", nodes[0].command("CLUSTER INFO"));
        std::thread::yield_now();
    }
    nodes
}
