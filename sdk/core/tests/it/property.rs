//! A correct broker, any interleaving of its streams, any cuts: the application gets each event once and in order,
//! and each message is stored once and in order.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    Class, Decoder, ErrorCode, FrameType, RawFrame, Row,
    control::{self, attach::Reset, subscribe},
    frames::{self, Ack, Page, Send},
    limits::FRAME_BYTES_MAX,
};
use antiphon_sdk_core::{
    Client, Command, CommandId, From, Input, Item, NewMessage, Output, SendState, StreamId, SubscriptionId, Time, Token,
};
use bytes::Bytes;
use proptest::{prelude::*, sample::select};
use uuid::Uuid;

use crate::rig::{HANDLE, config, error, log, row_with, welcome};

const PAGE_ROWS: usize = 3;
const INLINE_ROWS: u64 = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody else's event.
    Append,
    /// The application sends.
    Send,
    /// The broker reads so many frames.
    Read(usize),
    /// The client gets so many bytes of one stream.
    Deliver(Wire, usize),
    /// The connection breaks; everything on its way is lost.
    Cut,
    /// The broker ends the subscription because the reader is slow.
    Behind,
    /// The next requests of this type are refused for now.
    Refuse(FrameType, u8),
    /// The oldest half of the log goes.
    Trim,
    /// A fault of the broker: it leaves out the next live event.
    LeaveOut,
    /// A fault of the broker: it pushes an old event again.
    Repeat(usize),
    /// A deadline passes.
    Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    Control,
    Events,
    Backfill,
}

const WIRES: [Wire; 3] = [Wire::Control, Wire::Events, Wire::Backfill];

fn step() -> impl Strategy<Value = Step> {
    let refusable = vec![FrameType::Send, FrameType::Fetch, FrameType::Subscribe];
    prop_oneof![
        6 => Just(Step::Append),
        3 => Just(Step::Send),
        8 => (1..6_usize).prop_map(Step::Read),
        12 => (select(WIRES.to_vec()), 1..400_usize).prop_map(|(wire, bytes)| Step::Deliver(wire, bytes)),
        1 => Just(Step::Cut),
        1 => Just(Step::Behind),
        1 => (select(refusable), 1..4_u8).prop_map(|(frame_type, times)| Step::Refuse(frame_type, times)),
        4 => Just(Step::Time),
    ]
}

/// What one connection has on its way, and what the broker remembers of it.
#[derive(Default)]
struct Connection {
    to_broker: VecDeque<RawFrame>,
    to_client: BTreeMap<Wire, VecDeque<u8>>,
    live: bool,
    next_dseq: Option<u64>,
}

#[derive(Default)]
struct Broker {
    rows: Vec<Row>,
    floor: u64,
    stored: BTreeMap<Uuid, u64>,
    connection: Option<Connection>,
    refuse: BTreeMap<FrameType, u8>,
    leave_out: bool,
}

impl Broker {
    fn head(&self) -> u64 {
        self.rows.len() as u64
    }

    fn put(&mut self, wire: Wire, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        let queue = connection.to_client.entry(wire).or_insert_with(|| match wire {
            Wire::Control => VecDeque::new(),
            Wire::Events => frames::open(Class::Events).to_vec().into(),
            Wire::Backfill => frames::open(Class::Backfill).to_vec().into(),
        });
        queue.extend(bytes);
    }

    fn append(&mut self, client_message_id: Uuid, body: &[u8]) {
        let row = row_with(self.head() + 1, client_message_id, body);
        self.rows.push(row.clone());
        let live = self.connection.as_ref().is_some_and(|connection| connection.live);
        if live && !std::mem::take(&mut self.leave_out) {
            self.put(Wire::Events, &frames::event(HANDLE, &row));
        }
    }

    fn repeat(&mut self, back: usize) {
        let live = self.connection.as_ref().is_some_and(|connection| connection.live);
        if let Some(row) = self.rows.iter().rev().nth(back).filter(|_| live).cloned() {
            self.put(Wire::Events, &frames::event(HANDLE, &row));
        }
    }

    fn behind(&mut self) {
        if let Some(connection) = self.connection.as_mut().filter(|connection| connection.live) {
            connection.live = false;
            self.put(Wire::Events, &frames::raw(FrameType::Behind, HANDLE, &[]));
        }
    }

    fn read(&mut self) -> bool {
        let Some(frame) = self.connection.as_mut().and_then(|connection| connection.to_broker.pop_front()) else {
            return false;
        };
        let refusals = self.refuse.entry(frame.frame_type).or_default();
        if *refusals > 0 {
            *refusals -= 1;
            if frame.frame_type == FrameType::Send {
                let dseq = Send::decode(&frame.body).unwrap().dseq;
                let next = self.connection.as_mut().unwrap().next_dseq.get_or_insert(dseq);
                *next = dseq.min(*next);
            }
            self.refuse(frame.id, ErrorCode::Overloaded);
            return true;
        }
        match frame.frame_type {
            FrameType::Hello => self.put(Wire::Control, &frames::control(FrameType::Welcome, frame.id, &welcome())),
            FrameType::Subscribe => self.subscribe(&frame),
            FrameType::Unsubscribe => self.unsubscribe(&frame),
            FrameType::Fetch => self.fetch(&frame),
            FrameType::Send => self.send(&frame),
            other => panic!("the client wrote {}", other.name()),
        }
        true
    }

    fn refuse(&mut self, request: u32, code: ErrorCode) {
        self.put(Wire::Control, &frames::control(FrameType::Error, request, &error(code)));
    }

    fn subscribe(&mut self, frame: &RawFrame) {
        let body: control::Subscribe = frames::decode_request(&frame.body).unwrap();
        let connection = self.connection.as_mut().unwrap();
        assert!(!connection.live, "a session follows a log once");
        connection.live = true;
        let live_from = self.head() + 1;
        let (wanted, reset) = match body.from.unwrap() {
            subscribe::From::Tail(_) => (live_from, Reset::None),
            subscribe::From::Last(rows) => (live_from.saturating_sub(rows.into()), Reset::None),
            subscribe::From::After(p) if p.seq > 0 && p.seq + 1 < self.floor => (self.floor, Reset::HistoryGone),
            subscribe::From::After(p) => (p.seq + 1, Reset::None),
        };
        let replay_from = wanted.max(self.floor).max(1);
        assert!(replay_from <= live_from, "the client is ahead of the log");
        let inlined = live_from - replay_from <= INLINE_ROWS;
        let attach = control::Attach {
            reset: reset.into(),
            floor: self.floor,
            ..crate::rig::attach(replay_from, live_from, inlined)
        };
        self.put(Wire::Events, &frames::control(FrameType::Attach, frame.id, &attach));
        if inlined {
            let owed: Vec<Row> = self.rows[replay_from as usize - 1..].to_vec();
            owed.iter().for_each(|row| self.put(Wire::Events, &frames::event(HANDLE, row)));
        }
    }

    fn unsubscribe(&mut self, frame: &RawFrame) {
        self.put(Wire::Control, &frames::raw(FrameType::Ok, frame.id, &[]));
        let connection = self.connection.as_mut().unwrap();
        if connection.live {
            connection.live = false;
            let detach = control::Detach { reason: control::detach::Reason::Unsubscribed.into(), seq: 0 };
            self.put(Wire::Events, &frames::control(FrameType::Detach, HANDLE, &detach));
        }
    }

    fn fetch(&mut self, frame: &RawFrame) {
        let body: control::Fetch = frames::decode_request(&frame.body).unwrap();
        let from = body.from.max(self.floor).max(1);
        let to = body.to.min(self.head() + 1);
        let upto = to.min(from + PAGE_ROWS as u64).max(from);
        let page = Page {
            next: if upto < to { upto } else { 0 },
            head: self.head(),
            floor: self.floor,
            epoch: 1,
            rows: (from..upto).map(|seq| self.rows[seq as usize - 1].clone()).collect(),
        };
        self.put(Wire::Backfill, &page.to_frame(frame.id));
    }

    fn send(&mut self, frame: &RawFrame) {
        let send = Send::decode(&frame.body).unwrap();
        let next = self.connection.as_mut().unwrap().next_dseq.get_or_insert(send.dseq);
        if send.dseq > *next {
            return self.refuse(frame.id, ErrorCode::OutOfOrder);
        }
        *next = (*next).max(send.dseq + 1);
        let duplicate = self.stored.contains_key(&send.client_message_id);
        if !duplicate {
            self.stored.insert(send.client_message_id, self.head() + 1);
            self.append(send.client_message_id, &send.body);
        }
        let seq = self.stored[&send.client_message_id];
        let ack = Ack::of(&self.rows[seq as usize - 1], 1, duplicate);
        self.put(Wire::Control, &ack.to_frame(frame.id));
    }
}

struct World {
    client: Client,
    now: Time,
    broker: Broker,
    connecting: bool,
    sent: u64,
    acknowledged: Vec<u64>,
    /// The application's side: what it has, and the position after which events come.
    received: Vec<u64>,
    after: Option<u64>,
    resets: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            client: Client::new(config()),
            now: Time(0),
            broker: Broker::default(),
            connecting: false,
            sent: 0,
            acknowledged: Vec::new(),
            received: Vec::new(),
            after: None,
            resets: 0,
        };
        let subscribe = Command::Subscribe { id: SubscriptionId(1), log: log(), from: From::Start };
        world.input(Input::Command(subscribe));
        world
    }

    fn input(&mut self, input: Input) {
        self.client.handle(self.now, input);
        while let Some(output) = self.client.poll_output() {
            self.output(output);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Connect => self.connecting = true,
            Output::Close => panic!("the client closed a connection to a correct broker"),
            Output::NeedToken => self.input(Input::Token(Token::new("token"))),
            Output::Write(bytes) => {
                let mut decoder = Decoder::new(FRAME_BYTES_MAX);
                decoder.push(bytes);
                let frame = decoder.next_frame().unwrap().unwrap();
                self.broker.connection.as_mut().expect("there is a connection").to_broker.push_back(frame);
            }
            Output::Send { id, state: SendState::Sent(_) } => self.acknowledged.push(id.0),
            Output::Send { state: SendState::Failed(error), .. } => panic!("a message failed: {error}"),
            Output::Subscription { item, .. } => self.item(item),
            _ => {}
        }
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Attached(attached) => {
                // Without a reset the application goes on exactly where it was.
                self.after.get_or_insert(attached.after.seq);
            }
            Item::Event(event) => {
                let expected = self.after.expect("events follow an attachment") + 1;
                assert_eq!(event.seq(), expected, "each event once and in order");
                self.after = Some(event.seq());
                self.received.push(event.seq());
            }
            Item::Reset { after, .. } => {
                assert!(Some(after.seq) > self.after, "a reset never repeats events of the same epoch here");
                self.after = Some(after.seq);
                self.resets += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append => self.broker.append(Uuid::nil(), b"theirs"),
            Step::Send => {
                self.sent += 1;
                let message = NewMessage::text(log(), self.sent.to_string());
                self.input(Input::Command(Command::Send { id: CommandId(self.sent), message }));
            }
            Step::Read(frames) => {
                self.connect();
                for _ in 0..frames {
                    self.broker.read();
                }
            }
            Step::Deliver(wire, bytes) => {
                self.deliver(wire, bytes);
            }
            Step::Cut => {
                if self.broker.connection.take().is_some() {
                    self.input(Input::Disconnected { cause: "cut".into(), close_code: None });
                }
            }
            Step::Behind => self.broker.behind(),
            Step::Refuse(frame_type, times) => {
                self.broker.refuse.insert(frame_type, times);
            }
            Step::Trim => self.broker.floor = self.broker.floor.max(self.broker.head() / 2 + 1),
            Step::LeaveOut => self.broker.leave_out = true,
            Step::Repeat(back) => self.broker.repeat(back),
            Step::Time => self.time(),
        }
    }

    fn connect(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.broker.connection = Some(Connection::default());
            self.input(Input::Connected);
        }
    }

    fn deliver(&mut self, wire: Wire, bytes: usize) -> bool {
        let Some(connection) = &mut self.broker.connection else { return false };
        let Some(queue) = connection.to_client.get_mut(&wire).filter(|queue| !queue.is_empty()) else { return false };
        let chunk: Bytes = queue.drain(..bytes.min(queue.len())).collect::<Vec<u8>>().into();
        self.input(match wire {
            Wire::Control => Input::Control(chunk),
            Wire::Events => Input::Stream(StreamId(3), chunk),
            Wire::Backfill => Input::Stream(StreamId(7), chunk),
        });
        true
    }

    fn time(&mut self) {
        // The deadline of the handshake is for a broker that is silent, which this one is not.
        let handshake = self.connecting || self.broker.connection.is_some() && !self.established();
        if let Some(at) = self.client.poll_timeout().filter(|_| !handshake) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
    }

    fn established(&self) -> bool {
        self.broker.connection.as_ref().is_some_and(|connection| {
            let waits = connection.to_client.get(&Wire::Control).is_some_and(|queue| !queue.is_empty());
            connection.to_broker.iter().all(|frame| frame.frame_type != FrameType::Hello) && !waits
        })
    }

    /// Lets everything that is on its way arrive.
    fn settle(&mut self) {
        self.broker.refuse.clear();
        for _ in 0..10_000 {
            self.connect();
            let mut moved = self.broker.read();
            for wire in WIRES {
                moved |= self.deliver(wire, 1_000);
            }
            if !moved {
                if self.client.poll_timeout().is_none() {
                    return;
                }
                self.time();
            }
        }
        panic!("the client does not come to rest");
    }

    fn check_messages(&self) {
        let all: Vec<u64> = (1..=self.sent).collect();
        let stored: Vec<u64> = self
            .broker
            .rows
            .iter()
            .filter(|row| !row.client_message_id().is_nil())
            .map(|row| String::from_utf8(row.body().into()).unwrap().parse().unwrap())
            .collect();
        assert_eq!(stored, all, "each message is stored once and in order");
        let mut acknowledged = self.acknowledged.clone();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, all, "each message is acknowledged once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_event_comes_once_and_in_order_whatever_the_network_does(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.run(step));
        world.settle();
        let all: Vec<u64> = (1..=world.broker.head()).collect();
        prop_assert_eq!(&world.received, &all);
        prop_assert_eq!(world.resets, 0);
        world.check_messages();
    }

    #[test]
    fn faults_of_the_broker_are_repaired(
        steps in prop::collection::vec(
            prop_oneof![20 => step(), 1 => Just(Step::LeaveOut), 1 => (0..4_usize).prop_map(Step::Repeat)],
            1..250,
        ),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.run(step));
        world.broker.leave_out = false;
        world.settle();
        // What is left out at the very end shows with the next event.
        world.run(Step::Append);
        world.settle();
        let all: Vec<u64> = (1..=world.broker.head()).collect();
        prop_assert_eq!(&world.received, &all);
        prop_assert_eq!(world.resets, 0);
        world.check_messages();
    }

    #[test]
    fn history_that_goes_is_never_left_out_silently(
        steps in prop::collection::vec(prop_oneof![30 => step(), 1 => Just(Step::Trim)], 1..250),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.run(step));
        world.settle();
        prop_assert_eq!(world.after, Some(world.broker.head()));
        if world.received.len() as u64 != world.broker.head() {
            prop_assert!(world.resets > 0 || world.received.first() > Some(&1) || world.received.is_empty());
        }
        world.check_messages();
    }
}
