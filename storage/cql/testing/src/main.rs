//! `antiphon-cassandra`: see `--help`.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use antiphon_cql_testing::{Cluster, CommitlogSync, Node, Options};
use clap::Parser;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// How long the command `ring` waits.
const RING_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs real Apache Cassandra nodes on loopback, with empty data, until it is told to stop.
///
/// Prints `version: ...`, a line `contact: HOST:PORT` for each node, with TLS a line `ca: FILE`, then `ready`. It ends when standard input is closed,
/// or with SIGTERM, SIGINT or SIGHUP, and then nothing is left: no process, no file.
///
/// Reads commands from standard input, `kill N`, `pause N`, `resume N`, `stop N`, `start N` with the number of a node from
/// 1, and `ring`, which waits until all nodes reach each other. Each is answered by a line `done` or `error: ...`.
#[derive(Debug, Parser)]
#[command(name = "antiphon-cassandra", version)]
struct Cli {
    /// How many nodes, 1 to 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Heap of each node, in MiB.
    #[arg(long, default_value_t = 512)]
    heap_mib: u32,
    /// Clients must log in; there is the superuser cassandra with password cassandra.
    #[arg(long)]
    authentication: bool,
    /// Clients must speak TLS; a line `ca: FILE` names the root to trust.
    #[arg(long)]
    tls: bool,
    /// Sync the commit log every 10 s instead of before each write is acknowledged.
    #[arg(long)]
    periodic_sync: bool,
    /// How long a coordinator waits for replicas to write, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    write_request_timeout_ms: u32,
    /// Start some seconds later and be faster then, for load.
    #[arg(long)]
    throughput: bool,
    /// Pay no attention to standard input, for shells that start it in the background.
    #[arg(long)]
    no_stdin: bool,
}

impl Cli {
    fn options(&self) -> Options {
        let sync = if self.periodic_sync { CommitlogSync::Periodic } else { CommitlogSync::Batch };
        Options::default()
            .nodes(self.nodes)
            .heap_mib(self.heap_mib)
            .authentication(self.authentication)
            .tls(self.tls)
            .commitlog_sync(sync)
            .write_request_timeout_ms(self.write_request_timeout_ms)
            .quick_start(!self.throughput)
    }
}

/// What can happen to this program.
enum Event {
    Command(String),
    End,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antiphon-cassandra: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let (sender, events) = mpsc::channel();
    end_with_signals(sender.clone())?;
    // A signal that comes while it starts is obeyed when it has started: nothing is left half made.
    let cluster = Cluster::start(cli.options())?;
    let mut out = io::stdout().lock();
    writeln!(out, "version: {}", cluster.version())?;
    for contact in cluster.contact_points() {
        writeln!(out, "contact: {contact}")?;
    }
    if let Some(ca) = cluster.ca() {
        writeln!(out, "ca: {}", ca.display())?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    if !cli.no_stdin {
        read_commands(sender);
    }
    for event in events {
        match event {
            Event::Command(line) => answer(&mut out, obey(&cluster, &line))?,
            Event::End => break,
        }
    }
    Ok(())
}

fn end_with_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            let _nobody_waits = events.send(Event::End);
        }
    });
    Ok(())
}

fn read_commands(events: Sender<Event>) {
    thread::spawn(move || {
        let lines = io::stdin().lock().lines().map_while(Result::ok);
        for event in lines.map(Event::Command).chain([Event::End]) {
            let _nobody_waits = events.send(event);
        }
    });
}

fn answer(out: &mut impl Write, result: Result<(), Box<dyn Error>>) -> io::Result<()> {
    match result {
        Ok(()) => writeln!(out, "done")?,
        // A log's end has many lines, an answer one.
        Err(error) => writeln!(out, "error: {}", with_causes(&*error).replace('\n', " | "))?,
    }
    out.flush()
}

fn obey(cluster: &Cluster, line: &str) -> Result<(), Box<dyn Error>> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("ring"), None, _) => Ok(cluster.wait_for_ring(RING_TIMEOUT)?),
        (Some(action), Some(number), None) => act(node(cluster, number)?, action),
        _ => Err("a command is an action and the number of a node, as in `kill 2`".into()),
    }
}

fn node<'a>(cluster: &'a Cluster, number: &str) -> Result<&'a Node, String> {
    let nodes = cluster.nodes();
    let found = nodes.iter().find(|node| node.number().to_string() == number);
    found.ok_or_else(|| format!("there are nodes 1 to {}, no node {number}", nodes.len()))
}

fn act(node: &Node, action: &str) -> Result<(), Box<dyn Error>> {
    match action {
        "kill" => node.kill()?,
        "pause" => node.pause()?,
        "resume" => node.resume()?,
        "stop" => node.stop()?,
        "start" => node.start()?,
        _ => return Err(format!("there is no action {action}; there are kill, pause, resume, stop and start").into()),
    }
    Ok(())
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
