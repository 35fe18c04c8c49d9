//! A client, a clock, and both directions of the wire as text.

use std::time::Duration;

use antiphon_protocol::{
    Class, ContentType, Decoder, ErrorCode, EventKind, FrameType, LogName, NewRow, Position, RawFrame, Row, UserId,
    control::{self, subscribe},
    frames::{self, Ack, Page, Send, SendBatch},
    limits::FRAME_BYTES_MAX,
};
use antiphon_sdk_core::{
    Client, Command, CommandId, Config, ConnectionState, From, Input, Item, NewMessage, OutboxLimits, Output, Presence,
    SendState, StreamId, SubscriptionId, Time, Token,
};
use bytes::Bytes;
use uuid::Uuid;

pub(crate) const EVENTS: StreamId = StreamId(3);
pub(crate) const STATE: StreamId = StreamId(7);
pub(crate) const BACKFILL: StreamId = StreamId(11);
/// The handle of every log in these tests.
pub(crate) const HANDLE: u32 = 9;

pub(crate) struct Rig {
    pub(crate) client: Client,
    pub(crate) now: Time,
}

pub(crate) fn config() -> Config {
    Config {
        device: None,
        client_name: "test".into(),
        follow_mine: false,
        outbox: OutboxLimits::default(),
        seed: [7; 32],
    }
}

pub(crate) fn log() -> LogName {
    "c:a".parse().unwrap()
}

pub(crate) fn row(seq: u64) -> Row {
    row_with(seq, Uuid::nil(), b"x")
}

pub(crate) fn row_with(seq: u64, client_message_id: Uuid, body: &[u8]) -> Row {
    NewRow {
        seq,
        msgno: seq,
        time_ms: 1_000 + seq,
        event_id: Uuid::from_u128(seq.into()),
        client_message_id,
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        sender: &UserId::new("bob").unwrap(),
        via: None,
        envelope: b"",
        body,
    }
    .to_row()
}

pub(crate) fn welcome() -> control::Welcome {
    control::Welcome {
        version: 1,
        session_id: Bytes::from_static(b"session"),
        resume_token: Bytes::from_static(b"resume"),
        server_time_ms: 1_700_000_000_000,
        user: "ann".into(),
        max_body_bytes: 65_536,
        max_subscriptions: 256,
        capabilities: vec!["batch".into()],
        ..Default::default()
    }
}

/// The result of a record that was stored at `seq`.
pub(crate) fn stored(seq: u64) -> control::BatchResult {
    control::BatchResult {
        position: Some(control::Position { epoch: 1, seq }),
        event_id: Bytes::copy_from_slice(row(seq).event_id().as_bytes()),
        msgno: seq,
        ..Default::default()
    }
}

/// The result of a record that was refused.
pub(crate) fn failed(code: ErrorCode) -> control::BatchResult {
    control::BatchResult { error: Some(error(code)), ..Default::default() }
}

pub(crate) fn attach(replay_from: u64, live_from: u64, inlined: bool) -> control::Attach {
    control::Attach {
        handle: HANDLE,
        log: "c:a".into(),
        epoch: 1,
        live_from,
        replay_from,
        inlined,
        head: live_from - 1,
        floor: 1,
        head_msgno: live_from - 1,
        ..Default::default()
    }
}

pub(crate) fn error(code: ErrorCode) -> control::Error {
    control::Error { number: code as u32, code: code.code().into(), ..Default::default() }
}

impl Rig {
    /// Not connected; the first outputs are still there.
    pub(crate) fn offline(config: Config) -> Self {
        Self { client: Client::new(config), now: Time(0) }
    }

    /// A session stands, and the streams of the broker are open.
    pub(crate) fn online() -> Self {
        let mut rig = Self::offline(config());
        rig.seen();
        rig.go_online();
        rig.seen();
        rig
    }

    /// From the wish for a token, or to connect, to the session.
    pub(crate) fn go_online(&mut self) {
        self.input(Input::Token(Token::new("token")));
        self.input(Input::Connected);
        let lines = self.seen();
        let hello = lines.iter().find(|line| line.starts_with("HELLO")).expect("HELLO is written").clone();
        let id = hello["HELLO#".len()..].split(' ').next().unwrap().parse().unwrap();
        self.control(frames::control(FrameType::Welcome, id, &welcome()));
        self.open_streams();
    }

    pub(crate) fn open_streams(&mut self) {
        for (stream, class) in [(EVENTS, Class::Events), (STATE, Class::State), (BACKFILL, Class::Backfill)] {
            self.input(Input::Stream(stream, frames::open(class)));
        }
    }

    /// The connection is lost; time passes until the client connects again, and the session stands again.
    pub(crate) fn reconnect(&mut self) {
        self.lose();
        self.wait();
        self.go_online_again();
    }

    pub(crate) fn go_online_again(&mut self) {
        self.input(Input::Connected);
        let lines = self.seen();
        let hello = lines.iter().find(|line| line.starts_with("HELLO")).expect("HELLO is written").clone();
        let id = hello["HELLO#".len()..].split(' ').next().unwrap().parse().unwrap();
        self.control(frames::control(FrameType::Welcome, id, &welcome()));
        self.open_streams();
    }

    pub(crate) fn lose(&mut self) {
        self.input(Input::Disconnected { cause: "lost".into(), close_code: None });
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.client.handle(self.now, input);
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.input(Input::Command(command));
    }

    pub(crate) fn control(&mut self, bytes: Bytes) {
        self.input(Input::Control(bytes));
    }

    pub(crate) fn events(&mut self, bytes: Bytes) {
        self.input(Input::Stream(EVENTS, bytes));
    }

    pub(crate) fn event(&mut self, seq: u64) {
        self.events(frames::event(HANDLE, &row(seq)));
    }

    pub(crate) fn attach(&mut self, request: u32, attach: &control::Attach) {
        self.events(frames::control(FrameType::Attach, request, attach));
    }

    pub(crate) fn detach(&mut self, reason: control::detach::Reason, seq: u64) {
        let detach = control::Detach { reason: reason.into(), seq };
        self.events(frames::control(FrameType::Detach, HANDLE, &detach));
    }

    pub(crate) fn behind(&mut self) {
        self.events(frames::raw(FrameType::Behind, HANDLE, &[]));
    }

    pub(crate) fn page(&mut self, request: u32, seqs: std::ops::Range<u64>, next: u64) {
        let head = seqs.end;
        let page = Page { next, head, floor: 1, epoch: 1, rows: seqs.map(row).collect() };
        self.input(Input::Stream(BACKFILL, page.to_frame(request)));
    }

    pub(crate) fn ok(&mut self, request: u32) {
        self.control(frames::raw(FrameType::Ok, request, &[]));
    }

    pub(crate) fn ack(&mut self, request: u32, seq: u64) {
        self.control(Ack::of(&row(seq), 1, false).to_frame(request));
    }

    pub(crate) fn batch_ack(&mut self, request: u32, results: Vec<control::BatchResult>) {
        self.control(frames::control(FrameType::BatchAck, request, &control::BatchAck { results }));
    }

    pub(crate) fn refuse(&mut self, request: u32, code: ErrorCode) {
        self.control(frames::control(FrameType::Error, request, &error(code)));
    }

    pub(crate) fn send(&mut self, id: u64, text: &str) {
        self.command(Command::Send { id: CommandId(id), message: NewMessage::text(log(), text) });
    }

    pub(crate) fn send_batch(&mut self, ids: std::ops::Range<u64>) {
        let message = |id: u64| (CommandId(id), NewMessage::text(log(), format!("{id}")));
        self.command(Command::SendBatch(ids.map(message).collect()));
    }

    pub(crate) fn subscribe(&mut self, from: From) {
        self.command(Command::Subscribe { id: SubscriptionId(1), log: log(), from });
    }

    /// Lets time pass until the next deadline.
    pub(crate) fn wait(&mut self) -> Duration {
        let at = self.client.poll_timeout().expect("a deadline is set");
        let waited = at.since(self.now);
        self.now = self.now.max(at);
        self.input(Input::Timeout);
        waited
    }

    /// Lets this much time pass, deadline by deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// All outputs, a line each.
    pub(crate) fn seen(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.client.poll_output()).map(|output| line(&output)).collect()
    }

    /// Compares all outputs since the last look.
    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.seen(), lines);
    }
}

/// What was written, frame by frame.
pub(crate) fn decode(bytes: &Bytes) -> RawFrame {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    decoder.push(bytes.clone());
    decoder.next_frame().unwrap().unwrap()
}

fn line(output: &Output) -> String {
    match output {
        Output::Connect => "connect".into(),
        Output::Close => "close".into(),
        Output::NeedToken => "need token".into(),
        Output::Write(bytes) | Output::WriteSignal(bytes) => written(&decode(bytes)),
        Output::State(ConnectionState::Connecting) => "connecting".into(),
        Output::State(ConnectionState::Ready(_)) => "ready".into(),
        Output::State(ConnectionState::Waiting { cause }) => format!("waiting: {cause}"),
        Output::State(ConnectionState::Stopped(reason)) => format!("stopped: {reason}"),
        Output::Send { id, state } => format!("m{} {}", id.0, send_state(state)),
        Output::Subscription { id, item } => format!("s{} {}", id.0, item_line(item)),
        Output::Page { id, result: Ok(page) } => {
            let seqs: Vec<_> = page.events.iter().map(|event| event.seq()).collect();
            format!("p{} {seqs:?} next {:?}", id.0, page.next)
        }
        Output::Page { id, result: Err(error) } => format!("p{} failed: {error}", id.0),
        Output::Messages { id, result: Ok(page) } => {
            format!("p{} {} messages next {:?}", id.0, page.messages.len(), page.next)
        }
        Output::Messages { id, result: Err(error) } => format!("p{} failed: {error}", id.0),
        Output::Answer { id, result: Ok(answer) } => format!("r{} {}", id.0, answer.frame_type.name()),
        Output::Answer { id, result: Err(error) } => format!("r{} failed: {error}", id.0),
        Output::Done { id, result: Ok(()) } => format!("d{} done", id.0),
        Output::Done { id, result: Err(error) } => format!("d{} failed: {error}", id.0),
        Output::Presence(Presence { user, status, text }) => {
            format!("presence {user} {status} {text}").trim_end().into()
        }
        Output::Digest(digest) => format!("digest {} {}", digest.log, digest.head),
    }
}

fn send_state(state: &SendState) -> String {
    match state {
        SendState::Queued => "queued".into(),
        SendState::Sending { .. } => "sending".into(),
        SendState::Sent(receipt) => format!("sent {}", receipt.position),
        SendState::Delivered => "delivered".into(),
        SendState::Read => "read".into(),
        SendState::Failed(error) => format!("failed: {error}"),
    }
}

fn item_line(item: &Item) -> String {
    match item {
        Item::Attached(attached) => format!("attached after {}", attached.after),
        Item::Event(event) => format!("event {}", event.position()),
        Item::Skipped { first, last } => format!("skipped {first}..={last}"),
        Item::Reset { reason, after } => format!("reset {reason:?} after {after}"),
        Item::Cursor(cursor) => format!("cursor {} {}/{}", cursor.user, cursor.delivered, cursor.read),
        Item::Signal(signal) => format!("signal {} {}", signal.user, signal.kind),
        Item::Detached(reason) => format!("detached {reason:?}"),
    }
}

fn written(frame: &RawFrame) -> String {
    fn body<M: Default + prost::Message>(frame: &RawFrame) -> M {
        frames::decode_request(&frame.body).unwrap()
    }
    let detail = match frame.frame_type {
        FrameType::Hello => {
            let hello: control::Hello = body(frame);
            format!(" {} resume={}", hello.token, String::from_utf8_lossy(&hello.resume_token))
        }
        FrameType::Auth => format!(" {}", body::<control::Auth>(frame).token),
        FrameType::Subscribe => {
            let subscribe: control::Subscribe = body(frame);
            let from = match subscribe.from.unwrap() {
                subscribe::From::After(p) => format!("after {}", Position { epoch: p.epoch, seq: p.seq }),
                subscribe::From::Last(rows) => format!("last {rows}"),
                subscribe::From::Tail(_) => "tail".into(),
            };
            format!(" {} {from}", subscribe.log)
        }
        FrameType::Unsubscribe => format!(" {}", body::<control::Unsubscribe>(frame).handle),
        FrameType::Fetch => {
            let fetch: control::Fetch = body(frame);
            let view = if fetch.view() == control::fetch::View::Messages { " messages" } else { "" };
            let at = if fetch.at_ms > 0 { format!(" at {}", fetch.at_ms) } else { String::new() };
            format!(" {} {}..{}{view}{at}", fetch.log, fetch.from, fetch.to)
        }
        FrameType::Cursor => {
            let cursor: control::Cursor = body(frame);
            format!(" {} {}/{}", cursor.log, cursor.delivered, cursor.read)
        }
        FrameType::Send => {
            let send = Send::decode(&frame.body).unwrap();
            format!(" {} dseq={} {}", send.log, send.dseq, String::from_utf8_lossy(&send.body))
        }
        FrameType::PresenceSubscribe => format!(" [{}]", body::<control::PresenceSubscribe>(frame).users.join(" ")),
        FrameType::Signal => {
            let signal: control::Signal = body(frame);
            format!(" {} {} {} ms", signal.log, signal.kind, signal.ttl_ms)
        }
        FrameType::SendBatch => {
            let records = SendBatch::decode(&frame.body).unwrap().records;
            let bodies: Vec<_> = records.iter().map(|send| String::from_utf8_lossy(&send.body)).collect();
            format!(" {} dseq={} {}", records[0].log, records[0].dseq, bodies.join(" "))
        }
        _ => String::new(),
    };
    format!("{}#{}{detail}", frame.frame_type.name(), frame.id)
}
