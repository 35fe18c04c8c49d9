//! Measures one shard of the embedded store with each writer in turn: `cargo run -p antiphon-storage --example writers
//! [-- FOLDER [SECONDS [ROUNDS [OUTSTANDING...]]]]`.
//!
//! A closed loop keeps a number of appends of 200 bytes outstanding, in the way a shard thread does: what completed is
//! submitted anew, then the loop sleeps until the store calls or its descriptor is readable. Rounds of the two writers
//! alternate, since the disk of a virtual machine has moods; the table shows the median round. A round during which
//! other processes kept a processor busy is repeated a few times; `others` is what was left of them, in processors.
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

/// Processors that others may use during a round; the disk's own interrupts count as others.
const OTHERS_MAX: f64 = 0.5;
const ATTEMPTS: usize = 3;

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
    others: f64,
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
    wait_for_quiet();
    let before = load.shard.counters();
    let busy = machine_time();
    let (started, thread, process) = (Instant::now(), cpu::thread_time(), cpu::process_time());
    load.run(outstanding, duration);
    let (elapsed, thread, process) = (started.elapsed(), cpu::thread_time() - thread, cpu::process_time() - process);
    let others = (machine_time() - busy).saturating_sub(process);
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
        others: others.as_secs_f64() / elapsed.as_secs_f64(),
    }
}

/// Waits, not for ever, until others let this process have the processors.
fn wait_for_quiet() {
    const LOOK: Duration = Duration::from_millis(100);
    for _ in 0..30 {
        let busy = machine_time();
        std::thread::sleep(LOOK);
        if (machine_time() - busy).as_secs_f64() < OTHERS_MAX / 2.0 * LOOK.as_secs_f64() {
            return;
        }
    }
}

/// What all processors together have worked, to about 10 ms; 0 where the system does not say.
fn machine_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice, system, idle, waiting, interrupts, soft interrupts.
    let ticks: Vec<u64> = ticks.map(|ticks| ticks.parse().unwrap()).take(7).collect();
    Duration::from_millis(
        10 * ticks.iter().enumerate().filter(|(n, _)| ![3, 4].contains(n)).map(|(_, t)| t).sum::<u64>(),
    )
}

/// The first round without much of a disturbance, or else the least disturbed one.
fn measure_quietly(dir: &Path, writer: WriterChoice, outstanding: u64, duration: Duration) -> Round {
    let mut best: Option<Round> = None;
    for _ in 0..ATTEMPTS {
        let round = measure(dir, writer, outstanding, duration);
        if best.as_ref().is_none_or(|best| round.others < best.others) {
            best = Some(round);
        }
        if best.as_ref().is_some_and(|best| best.others < OTHERS_MAX) {
            break;
        }
    }
    best.unwrap_or_default()
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
    println!(
        "outstanding writer    appends/s   p50 us   p99 us  shard us/append  process us/append  per block  writes/s others"
    );
    let outstanding: Vec<u64> = arguments.iter().skip(3).map(|outstanding| outstanding.parse().unwrap()).collect();
    for outstanding in if outstanding.is_empty() { OUTSTANDING.to_vec() } else { outstanding } {
        let mut results = [Vec::new(), Vec::new()];
        let writers = [WriterChoice::Plain, WriterChoice::IoUring];
        for _ in 0..rounds {
            for (writer, results) in writers.into_iter().zip(&mut results) {
                results.push(measure_quietly(&dir, writer, outstanding, Duration::from_secs_f64(seconds)));
            }
        }
        for (writer, results) in writers.into_iter().zip(results) {
            let round = median(results);
            println!(
                "{outstanding:>11} {:<8} {:>10.0} {:>8.0} {:>8.0} {:>16.2} {:>18.2} {:>10.1} {:>9.0} {:>6.2}",
                format!("{writer:?}"),
                round.appends_per_second,
                round.latency_p50_us,
                round.latency_p99_us,
                round.shard_us,
                round.process_us,
                round.appends_per_block,
                round.disk_writes_per_second,
                round.others,
            );
        }
    }
}
