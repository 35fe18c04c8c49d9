//! A guilty client: how it behaves, how it goes, and whether the broker ended it as the specification says.

use std::time::Instant;

use antiphon_protocol::{ErrorCode, FrameType, VERSION, control, frames, header::HEADER_BYTES};
use bytes::{Bytes, BytesMut};
use prost::Message;
use quinn_proto::ConnectionError;

use super::{
    mill::Mill,
    peer::{Habits, Peer},
    requests,
};
use crate::{clock::Moment, random::Random, tokens};

/// Bytes that an insider keeps ready to be written.
const AHEAD_BYTES: usize = 16 << 10;
/// Frames of one life at most, of those that the broker reads as fast as they come.
const LIFE_FRAMES: u64 = 1_200;
/// A life of a token, which is longer than any session here.
const TOKEN_MS: u64 = 3_600_000;

/// How an insider goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By a frame that no session survives.
    Fault,
    /// By BYE.
    Bye,
    /// By the end of its control stream.
    Finish,
    /// By a reset of its control stream.
    Reset,
    /// It closes the connection.
    Close,
    /// Without a word.
    Vanish,
}

/// What it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being connected.
    Connecting,
    /// It waits for WELCOME.
    Greeting,
    /// It sends.
    Talking,
    /// It has done what it came for.
    Done,
}

/// What became of a client that is gone.
#[derive(Debug)]
pub(super) enum Fate {
    /// Closed by the broker with this number.
    Closed(ErrorCode),
    /// It went by itself.
    Left,
    /// The broker did what it must not do.
    Wronged(String),
}

/// A client that means no good.
#[derive(Debug)]
pub(super) struct Guilty {
    /// Its connection.
    pub(super) peer: Peer,
    is_insider: bool,
    is_deaf: bool,
    /// It writes so few bytes at a time that it may not be done in five seconds.
    is_slow: bool,
    stage: Stage,
    ending: Ending,
    /// Frames that it still wants to send before it ends.
    left: u64,
    hello: Vec<u8>,
    /// Numbers with which the broker may close it, whatever it did.
    always: &'static [ErrorCode],
    /// Numbers with which the broker must close it now.
    due: &'static [ErrorCode],
    /// The error that came with id 0.
    farewell: Option<u32>,
    /// Whether the broker's frames can be expected to arrive.
    listens: bool,
}

impl Guilty {
    /// A client of some kind.
    pub(super) fn new(
        now: Moment,
        at: Instant,
        mut peer: impl FnMut(Instant, Habits) -> Peer,
        mill: &mut Mill,
    ) -> Self {
        let random = mill.random();
        let is_insider = random.per_mille(850);
        let is_deaf = is_insider && random.per_mille(120);
        let habits = Habits {
            deaf_window: is_deaf.then(|| 2_000 << random.below(6)),
            write_bytes_max: match random.below(10) {
                0 => 1 + random.index(40),
                1 | 2 => 100 + random.index(2_000),
                _ => 64 << 10,
            },
            hears_all: false,
        };
        let ending = match random.below(10) {
            0..5 => Ending::Fault,
            5 => Ending::Bye,
            6 => Ending::Finish,
            7 => Ending::Reset,
            8 => Ending::Close,
            _ => Ending::Vanish,
        };
        let is_slow = habits.write_bytes_max < 100;
        let left = if is_slow { random.below(30) } else { random.below(LIFE_FRAMES) };
        let hello = hello(random, now);
        Self {
            peer: peer(at, habits),
            is_insider,
            is_deaf,
            is_slow,
            stage: Stage::Connecting,
            ending,
            left: if is_deaf { u64::MAX } else { left },
            hello,
            always: &[],
            due: &[],
            farewell: None,
            listens: !is_deaf,
        }
    }

    /// Does what it does next. What became of it, once it is gone.
    pub(super) fn step(&mut self, at: Instant, mill: &mut Mill, out: &mut Vec<BytesMut>) -> Option<Fate> {
        self.listen();
        if let Some(reason) = self.peer.lost.take() {
            return Some(self.judge(&reason));
        }
        match self.stage {
            Stage::Connecting if self.peer.is_connected => self.begin(mill),
            Stage::Talking if self.left > 0 => self.talk(mill),
            Stage::Talking if self.peer.unwritten() == 0 => {
                if let Some(fate) = self.end(at, mill) {
                    self.peer.step(at, out);
                    return Some(fate);
                }
            }
            _ => {}
        }
        self.peer.step(at, out);
        None
    }

    /// The crowd is sent home: those who are still here go as they please.
    pub(super) fn leave(&mut self, at: Instant, mill: &mut Mill, out: &mut Vec<BytesMut>) {
        if mill.random().per_mille(500) {
            self.peer.close(at, 99);
            self.peer.step(at, out);
        }
    }

    fn begin(&mut self, mill: &mut Mill) {
        let mut bytes = Vec::new();
        if !self.is_insider {
            self.stage = Stage::Done;
            if self.is_slow {
                self.always = &[ErrorCode::AuthenticationTimeout];
            }
            match mill.random().below(8) {
                // It says nothing, or only a part, and its time runs out.
                0 => self.due = &[ErrorCode::AuthenticationTimeout],
                1 => {
                    self.due = &[ErrorCode::AuthenticationTimeout];
                    bytes = frames::raw(FrameType::Hello, 1, &self.hello)[..HEADER_BYTES + 3].to_vec();
                }
                2 | 3 => {
                    let (hello, code) = bad_hello(mill.random(), &self.hello);
                    self.due = one(code);
                    bytes = frames::raw(FrameType::Hello, 1, &hello).to_vec();
                }
                _ => self.due = mill.opening(&self.hello, &mut bytes),
            }
        } else {
            self.stage = Stage::Greeting;
            self.always = &[ErrorCode::Replaced, ErrorCode::TokenRevoked];
            bytes = frames::raw(FrameType::Hello, 1, &self.hello).to_vec();
            // Requests may follow before the verdict; they wait for it.
            for _ in 0..mill.random().below(4) {
                let end = bytes.len();
                mill.harmless(&mut bytes);
                if bytes.len() > 8_000 {
                    bytes.truncate(end);
                }
            }
        }
        self.peer.write(bytes);
    }

    fn talk(&mut self, mill: &mut Mill) {
        if self.peer.unwritten() >= AHEAD_BYTES {
            return;
        }
        let mut bytes = Vec::with_capacity(AHEAD_BYTES);
        while self.left > 0 && bytes.len() < AHEAD_BYTES {
            mill.harmless(&mut bytes);
            self.left -= 1;
        }
        self.peer.write(bytes);
    }

    /// What it does last; its fate, if that is all.
    fn end(&mut self, at: Instant, mill: &mut Mill) -> Option<Fate> {
        self.stage = Stage::Done;
        match self.ending {
            Ending::Fault => {
                let mut bytes = Vec::new();
                let code = mill.fatal(&mut bytes);
                self.due = one(code);
                // What follows is never looked at.
                mill.harmless(&mut bytes);
                self.peer.write(bytes);
            }
            Ending::Bye => {
                self.due = one(ErrorCode::Closed);
                self.peer.write(frames::raw(FrameType::Bye, 5, &[]).to_vec());
            }
            Ending::Finish | Ending::Reset => {
                (self.due, self.listens) = (one(ErrorCode::Closed), false);
                if self.ending == Ending::Finish {
                    self.peer.finish()
                } else {
                    self.peer.reset()
                }
                if mill.random().per_mille(500) {
                    self.peer.stop();
                }
            }
            Ending::Close => {
                self.peer.close(at, mill.random().below(6_000) as u32);
                return Some(Fate::Left);
            }
            Ending::Vanish => return Some(Fate::Left),
        }
        None
    }

    /// Looks at what the broker says: WELCOME, and the error that ends it all.
    fn listen(&mut self) {
        while let Some(frame) = self.peer.heard.pop_front() {
            match frame.frame_type {
                FrameType::Welcome => self.stage = Stage::Talking,
                FrameType::Error if frame.id == 0 => {
                    let error = frames::decode_answer::<control::Error>(&frame.body);
                    self.farewell = Some(error.map_or(0, |error| error.number));
                }
                _ => {}
            }
        }
        // Whoever does not read does not know when it may begin either.
        if self.is_deaf && self.stage == Stage::Greeting && self.peer.unwritten() == 0 {
            self.stage = Stage::Talking;
        }
    }

    /// Whether it was right that, and how, the broker closed it.
    fn judge(&self, reason: &ConnectionError) -> Fate {
        let ConnectionError::ApplicationClosed(close) = reason else {
            return Fate::Wronged(format!("{} was lost: {reason}", self.name()));
        };
        let number = u32::try_from(close.error_code.into_inner()).unwrap_or(0);
        let Some(code) = ErrorCode::from_number(number) else {
            return Fate::Wronged(format!("{} was closed with {number}, which is no error", self.name()));
        };
        if !self.due.contains(&code) && !self.always.contains(&code) {
            let (name, due) = (self.name(), self.due);
            return Fate::Wronged(format!("{name} was closed with {}, due was {due:?}", code.code()));
        }
        // BYE, and the end of the stream that would carry it, have no error, and who is replaced only sees the close code.
        let has_no_frame =
            code == ErrorCode::Replaced || (code == ErrorCode::Closed && self.due == one(ErrorCode::Closed));
        let is_told = self.listens && !has_no_frame;
        if is_told && self.farewell != Some(number) {
            let (name, farewell) = (self.name(), self.farewell);
            return Fate::Wronged(format!("{name} was closed with {number} and told {farewell:?} before"));
        }
        Fate::Closed(code)
    }

    /// Whether the broker has left something undone by now.
    pub(super) fn is_overdue(&self) -> bool {
        self.peer.is_connected && !self.is_deaf && !self.due.is_empty() && self.stage == Stage::Done
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        let kind = if self.is_insider { "an insider" } else { "a stranger" };
        let deaf = if self.is_deaf { ", deaf" } else { "" };
        format!("{kind} ({:?}, {:?}, {:?}{deaf})", self.peer.address, self.stage, self.ending)
    }
}

fn one(code: ErrorCode) -> &'static [ErrorCode] {
    let place = ErrorCode::ALL.iter().position(|other| *other == code).unwrap_or_default();
    &ErrorCode::ALL[place..=place]
}

/// A HELLO that reads well and says something wrong, and what it must be refused with.
fn bad_hello(random: &mut Random, good: &[u8]) -> (Vec<u8>, ErrorCode) {
    // Invariant: it was encoded here.
    let mut hello = control::Hello::decode(good).unwrap_or_default();
    let code = match random.below(7) {
        0 => {
            hello.versions = vec![0, 2, u32::MAX];
            ErrorCode::VersionUnsupported
        }
        1 => {
            hello.versions.clear();
            ErrorCode::VersionUnsupported
        }
        2 => {
            hello.token.clear();
            ErrorCode::TokenInvalid
        }
        3 => {
            hello.token = "x".repeat(8_193 + random.index(2_000));
            ErrorCode::TokenInvalid
        }
        4 => {
            hello.token = "no token".into();
            ErrorCode::TokenInvalid
        }
        5 => {
            hello.token = tokens::token("guilty-0", 1, 1);
            ErrorCode::TokenExpired
        }
        _ => {
            hello.device = "no device".into();
            ErrorCode::InvalidField
        }
    };
    (hello.encode_to_vec(), code)
}

/// The body of a good HELLO of one of the users, on one of a few devices.
fn hello(random: &mut Random, now: Moment) -> Vec<u8> {
    let user = requests::user(random);
    let (number, device) = (random.number(), format!("d{}", random.below(20)));
    let hello = control::Hello {
        versions: vec![VERSION, 9],
        token: tokens::token(&user, now.unix_us() / 1_000 + TOKEN_MS, number),
        device: if random.per_mille(900) { device } else { String::new() },
        sender_instance: Bytes::copy_from_slice(&u128::from(number).to_le_bytes()),
        follow_mine: random.per_mille(300),
        capabilities: vec!["batch".into(), "follow".into(), "unheard-of".into()],
        attempt: random.below(3),
        ..control::Hello::default()
    };
    hello.encode_to_vec()
}
