//! Browsers in one room, over WebSocket and JSON: what a live delivery costs the gateway with its broker, or a peer.
//!
//! All of them are the same sockets ([`super::browser`]). Every text begins with its number, and each browser checks that the
//! next one has the next number. The author's is a socket, too, which is not in the room. The processor time is that between
//! two moments at which nothing is under way; where servers acknowledge, every message was acknowledged by then.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_peers::{Dialect, Exchange, Peer, Server};
use serde::Serialize;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    browser::{Browser, BrowserError, Heard},
    contender::Contender,
    outcome::{Measure, Outcome},
    rows::{Goal, Row, Size, Work, goal},
};
use crate::{
    broker::Broker,
    fanout::{FanoutReport, METRICS_AGE, messages},
    follower::{End, Plan, Tally, settle},
    idle::IdleReport,
    names::{MessageNumber, message_id},
    report::Latencies,
    rooms::{Choice, Publish, Rooms},
    sockets::{METRIC_RENDERED, METRIC_TRUNKS},
    target::{Target, Usage},
};

/// From the last connection to a look at the memory.
const REST: Duration = Duration::from_secs(2);
const LOG: &str = "c:square";

const WS: Contender = Contender::Peer(Peer::Ws);
const SOCKET_IO: Contender = Contender::Peer(Peer::SocketIo);
const UWEBSOCKETS: Contender = Contender::Peer(Peer::UWebSockets);
const CENTRIFUGO: Contender = Contender::Peer(Peer::Centrifugo);

const GOALS: &[Goal] = &[
    goal(Measure::CpuUs, SOCKET_IO, 0.75, 0.55),
    goal(Measure::CpuUs, WS, 1.0, 0.75),
    goal(Measure::CpuUs, UWEBSOCKETS, 1.6, 1.2),
    goal(Measure::CpuUs, CENTRIFUGO, 0.8, 0.5),
];

/// Browsers in one room.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Browsers {
    /// Those that follow it.
    pub members: u32,
    /// Bytes of a text.
    pub bytes: usize,
    /// Texts per second.
    pub rate: f64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
}

/// The rows of live fan-out to browsers.
pub(super) fn browser_rows(size: Size) -> Vec<Row> {
    let row = |name, members: u32, rate: f64, rounds| {
        let members = (members / size.divide / 2 * 2).max(2);
        let browsers = Browsers { members, bytes: 200, rate, seconds: size.seconds, warm_up: 2.0 };
        let bytes = browsers.bytes;
        Row {
            name,
            title: format!(
                "live fan-out to browsers, 1 -> {members}, {bytes} bytes as JSON over WebSocket, {rate} messages a second, \
                 all without TLS"
            ),
            work: Work::Browsers(browsers),
            contenders: vec![Contender::Antiphon, WS, SOCKET_IO, UWEBSOCKETS, CENTRIFUGO],
            headline: Measure::CpuUs,
            goals: GOALS,
            rounds,
        }
    };
    let mut rows = vec![row("S9-1000", 1_000, 25.0, size.rounds)];
    if size.is_full {
        // As many as leave room under the limit of 20,000 open files that some machines have.
        rows.push(row("S9-9900", 9_900, 2.0, 1));
    }
    rows
}

/// What was measured.
#[derive(Debug, Default)]
pub struct BrowsersReport {
    /// The deliveries.
    pub fanout: FanoutReport,
    /// Memory with half of the browsers and all.
    pub memory: IdleReport,
    /// Times that a message was written as JSON, if the server says so.
    pub encodings_per_message: Option<f64>,
}

impl From<BrowsersReport> for Outcome {
    fn from(report: BrowsersReport) -> Self {
        let BrowsersReport { fanout, memory, encodings_per_message } = report;
        let mut outcome = Self::from(fanout);
        let more = [
            (Measure::KibPerConnection, Some(memory.kib_per_connection + memory.kernel_kib_per_connection)),
            (Measure::EncodingsPerMessage, encodings_per_message),
        ];
        outcome.figures.extend(more.into_iter().filter_map(|(measure, figure)| Some((measure, figure?))));
        if let Some(encodings) = encodings_per_message.filter(|encodings| *encodings != 1.0) {
            outcome.broken.get_or_insert(format!("a message was written as JSON {encodings} times"));
        }
        outcome
    }
}

/// A server for browsers.
struct Place<'a> {
    address: SocketAddr,
    pid: u32,
    /// How a browser of this number speaks; the author's is 0.
    dialect: &'a dyn Fn(u64) -> Dialect,
    usage: &'a dyn Fn() -> Usage,
}

/// On the gateway in a broker, which is gone when it is over.
pub async fn run_on_gateway(target: &Target, broker: Broker, load: Browsers) -> Result<BrowsersReport, Box<dyn Error>> {
    let address = target.gateway().ok_or("the broker has no gateway")?;
    let dialect = |number| match number {
        0 => gateway(&target.service_token("author")),
        number => gateway(&target.reader_token(&format!("reader-{number}"), LOG)),
    };
    let place = Place { address, pid: broker.pid(), dialect: &dialect, usage: &|| target.usage() };
    place.run(broker, load).await
}

/// On a peer, which is gone when it is over.
pub async fn run_on_peer(server: Server, load: Browsers) -> Result<BrowsersReport, Box<dyn Error>> {
    let (address, pid) = (server.address(), server.pid());
    let dialect = Dialect::of(server.peer()).ok_or("it is not for browsers")?;
    let place = Place { address, pid, dialect: &|_| dialect.clone(), usage: &|| Usage::of_process(pid) };
    place.run(server, load).await
}

impl Place<'_> {
    async fn run<S>(&self, server: S, load: Browsers) -> Result<BrowsersReport, Box<dyn Error>> {
        let Browsers { members, bytes, rate, seconds, warm_up } = load;
        let tally = Arc::new(Tally::default());
        let (plan, plans) = watch::channel(None);
        let mut report = BrowsersReport::default();
        report.memory.connections = members as usize;
        let readers = self.fill(&mut report.memory, |browser| follow(browser, plans.clone(), tally.clone())).await?;
        let browser = Browser::open(self.address, (self.dialect)(0)).await?;
        let is_acknowledged = browser.is_acknowledged();
        let mut room = Rooms::new(rate);
        room.add(Author { browser, bytes, sent: 0, acked: 0 }, plan);

        room.send(messages(warm_up, rate).max(1), Choice::Turns, false).await?;
        settle(&tally, room.sent() * u64::from(members)).await;
        let before = self.settled_usage().await;
        let fanout = &mut report.fanout;
        fanout.messages = messages(seconds, rate).max(1);
        fanout.lag = room.send(fanout.messages, Choice::Turns, true).await?.summary();
        let expected = room.sent() * u64::from(members);
        settle(&tally, expected).await;
        let after = Usage::of_process(self.pid);
        // What should not come has that time to do so.
        let page = self.settled_usage().await;
        fanout.expected = fanout.messages * u64::from(members);
        fanout.delivered = (tally.delivered.load(Ordering::Relaxed) + fanout.expected).saturating_sub(expected);
        fanout.apply(&before, &after, &page);
        let answers = if is_acknowledged { fanout.messages } else { 0 };
        report.encodings_per_message = encodings(&before, &page, answers).map(|count| count / fanout.messages as f64);
        // Every reader comes to an end.
        drop(server);
        fanout.gather(readers).await?;
        Ok(report)
    }

    /// Opens all browsers and lets them read; looks at the memory when half of them are there, and all.
    async fn fill<F>(
        &self,
        memory: &mut IdleReport,
        read: impl Fn(Browser) -> F,
    ) -> Result<JoinSet<F::Output>, Box<dyn Error>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (mut readers, all) = (JoinSet::new(), memory.connections as u64);
        for (step, numbers) in [(1, 1..=all / 2), (2, all / 2 + 1..=all)] {
            for number in numbers {
                let mut browser = Browser::open(self.address, (self.dialect)(number)).await?;
                browser.join().await?;
                readers.spawn(read(browser));
            }
            sleep(REST).await;
            memory.note_memory(step, self.pid)?;
        }
        memory.divide();
        Ok(readers)
    }

    /// A reading whose metrics page has caught up: the one before it says the same.
    async fn settled_usage(&self) -> Usage {
        let mut last = (self.usage)();
        loop {
            sleep(METRICS_AGE).await;
            let usage = (self.usage)();
            if written(&usage) == written(&last) {
                return usage;
            }
            last = usage;
        }
    }
}

/// Frames that were written as JSON so far, if the server says so.
fn written(usage: &Usage) -> Option<f64> {
    usage.metrics.as_ref()?.sum(METRIC_RENDERED)
}

/// Times that an event was written as JSON between two readings, for each trunk that it came on. So many acknowledgements
/// were written, too.
fn encodings(before: &Usage, after: &Usage, acknowledgements: u64) -> Option<f64> {
    let written = written(after)? - written(before)?;
    Some((written - acknowledgements as f64) / after.metrics.as_ref()?.sum(METRIC_TRUNKS)?)
}

/// The gateway's JSON.
fn gateway(token: &str) -> Dialect {
    let hello = json!({ "op": "HELLO", "id": 1, "versions": [1], "token": token });
    let subscribe = json!({ "op": "SUBSCRIBE", "id": 2, "log": LOG, "tail": true });
    Dialect {
        path: "/api/v1/socket",
        subprotocol: Some("antiphon.json.v1"),
        greeting: vec![Exchange::new(hello.to_string(), r#"{"op":"WELCOME""#)],
        joining: Exchange::new(subscribe.to_string(), r#"{"op":"ATTACH""#),
        publish: |number, text| {
            let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            let id = message_id(MessageNumber(number as u32), unix_ms);
            json!({ "op": "SEND", "id": number, "log": LOG, "client_message_id": id.to_string(), "text": text })
                .to_string()
        },
        published: Some(r#"{"op":"ACK""#),
        message: r#"{"op":"EVENT","#,
        heartbeat: None,
    }
}

/// Who says everything.
struct Author {
    browser: Browser,
    bytes: usize,
    sent: u64,
    acked: u64,
}

impl Publish for Author {
    async fn write(&mut self) -> Result<(), String> {
        self.sent += 1;
        let text = text(self.sent, self.bytes);
        self.browser.publish(self.sent, &text).await.map_err(|error| told(&error))
    }

    async fn answer(&mut self) -> Result<(), String> {
        match self.browser.next().await {
            Ok(Heard::Published) if self.acked < self.sent => self.acked += 1,
            Ok(heard) => return Err(format!("the author heard {heard:?}")),
            Err(error) => return Err(told(&error)),
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.browser.is_acknowledged() && self.acked < self.sent
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn next_position(&self) -> u64 {
        self.sent + 1
    }
}

/// The text of this number, of so many bytes.
fn text(number: u64, bytes: usize) -> String {
    let mut text = format!("{number} ");
    let rest = bytes.saturating_sub(text.len());
    text.extend(std::iter::repeat_n('x', rest));
    text
}

fn told(error: &BrowserError) -> String {
    format!("the author: {error}")
}

async fn follow(mut browser: Browser, plan: watch::Receiver<Option<Plan>>, tally: Arc<Tally>) -> (Latencies, End) {
    let mut latencies = Latencies::default();
    for next in 1.. {
        match browser.next().await {
            Ok(Heard::Message(number)) if number == next => {}
            Ok(heard) => return (latencies, End::Wrong(format!("{heard:?} came instead of {next}"))),
            Err(BrowserError::Io(error)) => return (latencies, End::Closed(error.to_string())),
            Err(error) => return (latencies, End::Wrong(error.to_string())),
        }
        tally.note(next, &plan, &mut latencies);
    }
    (latencies, End::Closed("there are no more numbers".into()))
}
