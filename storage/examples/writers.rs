//! Measures one shard of the embedded store with each writer in turn: `cargo run -p antiphon-storage --example writers
//! [-- FOLDER [SECONDS [ROUNDS]]]`.
//!
//! A closed loop keeps a number of appends of 200 bytes outstanding, in the way a shard thread does: what completed is
//! submitted anew, then the loop sleeps until the store calls or its descriptor is readable. Rounds of the two writers
//! alternate, since the disk of a virtual machine has moods; the table shows the median round.
#![allow(clippy::unwrap_used, reason = "a measurement that fails may panic")]

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_storage::{
    EventLog, Op, Token,
    conformance::rows::{TestRow, log},
    embedded::{Embedded, EmbeddedConfig, EmbeddedShard, Wake, WriterChoice},
};
use antiphon_sys::{
    cpu,
    doorbell::Doorbell,
    poller::{Source, wait},
};

const LOGS: u64 = 256;
const OUTSTANDING: [u64; 5] = [1, 16, 64, 256, 1024];

/// What one round measured.
#[derive(Debug, Clone, Default)]
struct Round {
    appends_per_second: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    /// Processor time of the shard's thread and of the whole process, for one append.
    shard_us: f64,
    process_us: f64,
    appends_per_block: f64,
    disk_writes_per_second: f64,
}

struct Load {
    shard: EmbeddedShard,
    bell: Doorbell,
    next: u64,
    sent: HashMap<Token, Instant>,
    latencies: Vec<Duration>,
}

impl Load {
    fn open(dir: &Path, writer: WriterChoice) -> Self {
        let bell = Doorbell::new().unwrap();
        let ringer = bell.ringer();
        let wake: Wake = Arc::new(move || ringer.ring());
        let fatal = Arc::new(|error| panic!("{error}"));
        let config = EmbeddedConfig { writer, ..EmbeddedConfig::new(1, fatal) };
        let shard = Embedded::open(dir, config, vec![wake]).unwrap().remove(0);
        Self { shard, bell, next: 0, sent: HashMap::new(), latencies: Vec::new() }
    }

    fn submit(&mut self) {
        self.next += 1;
        let seq = self.next.div_ceil(LOGS);
        let row = TestRow { seq, sender: 1, client_message_id: u128::from(self.next), body: &[b'x'; 200] };
        self.sent.insert(Token(self.next), Instant::now());
        self.shard.submit(Op::Append { log: log(self.next % LOGS), rows: vec![row.row()] }, Token(self.next));
    }

    fn run(&mut self, outstanding: u64, duration: Duration) {
        let end = Instant::now() + duration;
        (0..outstanding).for_each(|_| self.submit());
        let mut completions = Vec::new();
        while !self.sent.is_empty() {
            self.shard.poll_completions(&mut completions);
            let now = Instant::now();
            for completion in completions.drain(..) {
                assert!(completion.result.is_ok(), "{completion:?}");
                self.latencies.push(now - self.sent.remove(&completion.token).unwrap());
                if now < end {
                    self.submit();
                }
            }
            // What was submitted goes out as one block.
            self.shard.poll_completions(&mut completions);
            self.bell.arm();
            self.shard.poll_completions(&mut completions);
            let is_idle = completions.is_empty() && !self.sent.is_empty();
            let rung = is_idle && sleep(&self.bell, &self.shard);
            self.bell.disarm(rung);
        }
    }
}

fn sleep(bell: &Doorbell, shard: &EmbeddedShard) -> bool {
    let patience = Some(Duration::from_secs(30));
    match shard.wait_fd() {
        Some(fd) => wait([Source::readable(bell), Source::readable(&fd)], patience).unwrap()[0].readable,
        None => wait([Source::readable(bell)], patience).unwrap()[0].readable,
    }
}

fn measure(dir: &Path, writer: WriterChoice, outstanding: u64, duration: Duration) -> Round {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mut load = Load::open(dir.path(), writer);
    load.run(outstanding, duration / 8);
    load.latencies.clear();
    let before = load.shard.counters();
    let (started, thread, process) = (Instant::now(), cpu::thread_time(), cpu::process_time());
    load.run(outstanding, duration);
    let (elapsed, thread, process) = (started.elapsed(), cpu::thread_time() - thread, cpu::process_time() - process);
    let after = load.shard.counters();
    load.latencies.sort_unstable();
    let count = load.latencies.len() as f64;
    let quantile = |q: f64| load.latencies[((count - 1.0) * q) as usize].as_secs_f64() * 1e6;
    Round {
        appends_per_second: count / elapsed.as_secs_f64(),
        latency_p50_us: quantile(0.5),
        latency_p99_us: quantile(0.99),
        shard_us: thread.as_secs_f64() * 1e6 / count,
        process_us: process.as_secs_f64() * 1e6 / count,
        appends_per_block: count / (after.writer.blocks - before.writer.blocks) as f64,
        disk_writes_per_second: (after.writer.syncs - before.writer.syncs) as f64 / elapsed.as_secs_f64(),
    }
}

/// The round with the median throughput.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.appends_per_second.total_cmp(&b.appends_per_second));
    rounds.swap_remove(rounds.len() / 2)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = arguments.first().map_or_else(std::env::temp_dir, Into::into);
    let seconds = arguments.get(1).map_or(1.0, |seconds| seconds.parse().unwrap());
    let rounds: usize = arguments.get(2).map_or(5, |rounds| rounds.parse().unwrap());
    println!("outstanding writer    appends/s   p50 us   p99 us  shard us/append  process us/append  per block  writes/s");
    for outstanding in OUTSTANDING {
        let mut results = [Vec::new(), Vec::new()];
        let writers = [WriterChoice::Plain, WriterChoice::IoUring];
        for _ in 0..rounds {
            for (writer, results) in writers.into_iter().zip(&mut results) {
                results.push(measure(&dir, writer, outstanding, Duration::from_secs_f64(seconds)));
            }
        }
        for (writer, results) in writers.into_iter().zip(results) {
            let round = median(results);
            println!(
                "{outstanding:>11} {:<8} {:>10.0} {:>8.0} {:>8.0} {:>16.2} {:>18.2} {:>10.1} {:>9.0}",
                format!("{writer:?}"),
                round.appends_per_second,
                round.latency_p50_us,
                round.latency_p99_us,
                round.shard_us,
                round.process_us,
                round.appends_per_block,
                round.disk_writes_per_second,
            );
        }
    }
}
