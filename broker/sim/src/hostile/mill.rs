//! Makes hostile frames out of good ones: damaged bodies, damaged headers, frames of the wrong side or state.
//!
//! What is made is known for what it is: a frame that must leave the session alone, or one that must end it, and with
//! which number. So a broker that closes too much is found out like one that closes too little.

use antiphon_protocol::{
    ErrorCode, FrameType,
    frame_type::Direction,
    frames::NewSend,
    header::{FLAG_OPTIONAL, HEADER_BYTES},
    limits::FRAME_BYTES_MAX,
    row::{ContentType, EventKind},
};
use uuid::Builder;

use super::requests;
use crate::random::Random;

/// Good requests to begin with; each is used many times.
const BANK: usize = 1_500;
/// Bytes of a SEND before its names and contents.
const SEND_FIXED_BYTES: usize = 32;
/// Ids of sends lie within these many milliseconds, so that some come again.
const IDS_PER_MS: u64 = 64;

/// A header as it goes on the wire, right or wrong.
struct Header {
    length: u32,
    type_number: u8,
    flags: u8,
    zero: u16,
    id: u32,
}

impl Header {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&[self.type_number, self.flags]);
        out.extend_from_slice(&self.zero.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
    }
}

/// The source of hostile frames of one world.
#[derive(Debug)]
pub(super) struct Mill {
    random: Random,
    bank: Vec<(FrameType, Vec<u8>)>,
    sends: Vec<Vec<u8>>,
    unknown: Vec<u8>,
    from_broker: Vec<FrameType>,
    body: Vec<u8>,
    /// Now, for ids.
    pub(super) unix_ms: u64,
}

impl Mill {
    /// A source whose frames follow from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, "mill");
        let bank = (0..BANK).map(|_| requests::any(&mut random)).collect();
        let sends = (0..BANK / 4).map(|_| send(&mut random)).collect();
        let from_broker = FrameType::ALL.iter().copied().filter(|kind| kind.direction() == Direction::ToClient);
        Self {
            bank,
            sends,
            unknown: (0..=u8::MAX).filter(|number| FrameType::from_number(*number).is_none()).collect(),
            from_broker: from_broker.collect(),
            body: Vec::new(),
            unix_ms: 0,
            random,
        }
    }

    /// Chance of its own.
    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A frame that an established session survives.
    pub(super) fn harmless(&mut self, out: &mut Vec<u8>) {
        match self.random.below(100) {
            0..25 => self.a_send(out),
            25..78 => {
                let (kind, body) = &self.bank[self.random.index(BANK)];
                let kind = *kind;
                self.body.clone_from(body);
                self.damage();
                self.framed(kind as u8, out);
            }
            78..88 => self.garbage(out),
            88..92 => self.a_batch(out),
            92..94 => self.an_auth(out),
            _ => {
                // Numbers that nobody has given a meaning, marked as what may be ignored.
                let type_number = self.unknown[self.random.index(self.unknown.len())];
                self.random_body(40);
                let (length, flags) = (self.body.len() as u32, FLAG_OPTIONAL | (self.random.number() as u8 & 0xfe));
                Header { length, type_number, flags, zero: 0, id: self.random.number() as u32 }.write(out);
                out.extend_from_slice(&self.body);
            }
        }
    }

    /// A frame that ends an established session, and the number that it must end with.
    pub(super) fn fatal(&mut self, out: &mut Vec<u8>) -> ErrorCode {
        let id = self.id();
        let length = self.random.below(30) as u32;
        let known = FrameType::Cursor as u8;
        let (header, code) = match self.random.below(7) {
            0 => {
                let zero = 1 << self.random.below(16);
                (Header { length, type_number: known, flags: 0, zero, id }, ErrorCode::Malformed)
            }
            1 => {
                let too_long = (FRAME_BYTES_MAX - HEADER_BYTES) as u64 + 1;
                let length = too_long + self.random.below(u64::from(u32::MAX) - too_long + 1);
                let length = if self.random.per_mille(500) { length as u32 } else { too_long as u32 };
                (Header { length, type_number: known, flags: 0, zero: 0, id }, ErrorCode::FrameTooLarge)
            }
            2 => {
                let type_number = self.unknown[self.random.index(self.unknown.len())];
                let flags = self.random.number() as u8 & !FLAG_OPTIONAL;
                (Header { length, type_number, flags, zero: 0, id }, ErrorCode::UnknownFrame)
            }
            3 => (Header { length, type_number: known, flags: 0, zero: 0, id: 0 }, ErrorCode::Malformed),
            4 => {
                let type_number = FrameType::Hello as u8;
                (Header { length, type_number, flags: 0, zero: 0, id }, ErrorCode::UnexpectedFrame)
            }
            _ => {
                let type_number = self.from_broker[self.random.index(self.from_broker.len())] as u8;
                (Header { length, type_number, flags: FLAG_OPTIONAL, zero: 0, id }, ErrorCode::UnexpectedFrame)
            }
        };
        header.write(out);
        let body = (0..length.min(64)).map(|_| self.random.number() as u8);
        out.extend(body);
        code
    }

    /// A first frame that is no good HELLO, and the numbers that it may be refused with.
    pub(super) fn opening(&mut self, hello: &[u8], out: &mut Vec<u8>) -> &'static [ErrorCode] {
        const FIX: &[ErrorCode] = &[
            ErrorCode::Malformed,
            ErrorCode::UnknownFields,
            ErrorCode::InvalidField,
            ErrorCode::VersionUnsupported,
            ErrorCode::LimitExceeded,
            ErrorCode::TokenInvalid,
            ErrorCode::TokenMismatch,
            ErrorCode::Replaced,
            // It may be a HELLO still, without the capability that a later SEND_BATCH needs.
            ErrorCode::UnexpectedFrame,
        ];
        match self.random.below(4) {
            0 => {
                let (kind, body) = &self.bank[self.random.index(BANK)];
                let (type_number, length) = (*kind as u8, body.len() as u32);
                let id = self.random.number() as u32;
                Header { length, type_number, flags: 0, zero: 0, id }.write(out);
                out.extend_from_slice(body);
                // A body over the limit before authentication is refused for its length.
                &[ErrorCode::UnexpectedFrame, ErrorCode::FrameTooLarge]
            }
            1 => {
                let start = out.len();
                match self.fatal(out) {
                    // What is wrong with the header shows before what the frame is.
                    ErrorCode::Malformed if out[start + 6..start + 8] != [0, 0] => &[ErrorCode::Malformed],
                    ErrorCode::FrameTooLarge => &[ErrorCode::FrameTooLarge],
                    ErrorCode::UnknownFrame => &[ErrorCode::UnknownFrame],
                    _ if out[start + 4] == FrameType::Hello as u8 => FIX,
                    _ => &[ErrorCode::UnexpectedFrame],
                }
            }
            2 => {
                // More than may come before WELCOME, announced or sent.
                let length = 16_384 + self.random.below(1_000) as u32;
                Header { length, type_number: FrameType::Hello as u8, flags: 0, zero: 0, id: 1 }.write(out);
                out.resize(out.len() + length as usize, 0);
                &[ErrorCode::FrameTooLarge, ErrorCode::LimitExceeded]
            }
            _ => {
                self.body.clear();
                self.body.extend_from_slice(hello);
                // Bytes behind the last field are never canonical.
                self.body.extend_from_slice(&[0x80; 3]);
                self.damage();
                self.body.push(0x80);
                self.framed(FrameType::Hello as u8, out);
                FIX
            }
        }
    }

    fn id(&mut self) -> u32 {
        match self.random.below(4) {
            0 => 7,
            1 => u32::MAX,
            _ => (self.random.number() as u32).max(1),
        }
    }

    /// The body behind a header that fits it.
    fn framed(&mut self, type_number: u8, out: &mut Vec<u8>) {
        let length = self.body.len() as u32;
        let flags = if self.random.per_mille(900) { 0 } else { self.random.number() as u8 };
        let id = self.id();
        Header { length, type_number, flags, zero: 0, id }.write(out);
        out.extend_from_slice(&self.body);
    }

    fn random_body(&mut self, len_max: u64) {
        self.body.clear();
        let len = self.random.below(len_max + 1);
        self.body.extend((0..len).map(|_| self.random.number() as u8));
    }

    /// A request whose body is nothing.
    fn garbage(&mut self, out: &mut Vec<u8>) {
        let (kind, _) = self.bank[self.random.index(BANK)];
        self.random_body(60);
        // A BYE with anything in it is refused, and the session goes on.
        let is_bye = self.random.per_mille(100);
        if is_bye {
            self.body.push(0xff);
        }
        self.framed(if is_bye { FrameType::Bye } else { kind } as u8, out);
    }

    fn an_auth(&mut self, out: &mut Vec<u8>) {
        self.body.clear();
        let len = self.random.index(50) as u8;
        self.body.extend_from_slice(&[0x0a, len]);
        self.body.resize(2 + usize::from(len), b'x');
        self.damage();
        self.framed(FrameType::Auth as u8, out);
    }

    fn a_send(&mut self, out: &mut Vec<u8>) {
        self.pick_send();
        if self.random.per_mille(400) {
            self.damage_send();
        }
        self.framed(FrameType::Send as u8, out);
    }

    /// Some send, most often under an id that is new.
    fn pick_send(&mut self) {
        let at = self.random.index(self.sends.len());
        self.body.clone_from(&self.sends[at]);
        let (ago, number) = (self.random.below(4), self.random.below(IDS_PER_MS));
        let unix_ms = match self.random.below(200) {
            0 => 1,
            1 => self.unix_ms + 120_000,
            2 => u64::MAX >> 16,
            _ => self.unix_ms - ago,
        };
        let mut random = [0; 10];
        random[..8].copy_from_slice(&number.to_le_bytes());
        let id = Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid();
        self.body[..16].copy_from_slice(id.as_bytes());
        if self.random.per_mille(200) {
            let dseq = self.random.below(5).wrapping_sub(self.random.below(2));
            self.body[16..24].copy_from_slice(&dseq.to_le_bytes());
        }
    }

    /// One of the fixed fields of a SEND says something else: lengths above all.
    fn damage_send(&mut self) {
        match self.random.below(8) {
            0 => self.body[24] = self.random.number() as u8,
            1 => self.body[25] = self.random.below(6) as u8,
            2 => self.body[26] = [0, 1, 0x7f, 0xff][self.random.index(4)],
            3 => self.body[27] = [1, 64, 65, 0xff][self.random.index(4)],
            4 => self.body[28..30].copy_from_slice(&[0xff, 0x3f + self.random.below(0xc1) as u8]),
            5 => self.body[30] = 1,
            6 => {
                let at = self.random.index(self.body.len());
                self.body.truncate(at);
            }
            _ => self.damage(),
        }
    }

    /// Records behind each other, whose lengths may lie; of another system, some times.
    fn a_batch(&mut self, out: &mut Vec<u8>) {
        let is_import = self.random.per_mille(300);
        let mut records = Vec::new();
        let count = if self.random.per_mille(20) { 101 } else { 1 + self.random.below(4) };
        for _ in 0..count {
            self.pick_send();
            self.body[16..24].fill(0);
            let times = [0, 1, self.unix_ms, 1 << 53, u64::MAX];
            let time = is_import.then(|| times[self.random.index(times.len())].to_le_bytes());
            let time = time.as_ref().map_or(&[][..], |time| &time[..]);
            let honest = (time.len() + self.body.len()) as u32;
            let lies = [0, 1, honest.wrapping_sub(1), honest + 1, 0xffff, u32::MAX];
            let length = if self.random.per_mille(100) { lies[self.random.index(lies.len())] } else { honest };
            records.extend_from_slice(&length.to_le_bytes());
            records.extend_from_slice(time);
            records.extend_from_slice(&self.body);
        }
        self.body = records;
        self.framed(if is_import { FrameType::Import } else { FrameType::SendBatch } as u8, out);
    }

    /// Changes a Protobuf body, in four of ten cases.
    fn damage(&mut self) {
        if self.random.per_mille(600) {
            return;
        }
        match self.random.below(12) {
            0 => {
                let keep = self.random.index(self.body.len() + 1);
                self.body.truncate(keep);
            }
            // Fields that nobody knows: of each wire type, with small and large numbers.
            1 => self.body.extend_from_slice(&[0x78, 0x01]),
            2 => self.body.extend_from_slice(&[0x7a, 0x03, 1, 2, 3]),
            3 => self.body.extend_from_slice(&[0xfa, 0xff, 0xff, 0xff, 0x0f, 0x00]),
            // The same fields once more.
            4 => self.body.extend_from_within(..),
            // A varint that is longer than it must be, and one that never ends.
            5 => self.body.extend_from_slice(&[0x10, 0x81, 0x80, 0x80, 0x00]),
            6 => self.body.extend_from_slice(&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            // A length and a count far beyond the end.
            7 => self.body.extend_from_slice(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            // Groups within groups.
            8 => self.body.resize(self.body.len() + 120, 0x1b),
            9 => self.body.insert(0, self.random.number() as u8),
            _ => {
                for _ in 0..=self.random.below(3) {
                    if !self.body.is_empty() {
                        let at = self.random.index(self.body.len());
                        self.body[at] ^= 1 << self.random.below(8);
                    }
                }
            }
        }
    }
}

/// A good SEND, whose id is set when it is used.
fn send(random: &mut Random) -> Vec<u8> {
    let log = format!("c:{}", requests::conversation(random)).parse();
    // The pool has names that are none.
    let log = log.unwrap_or_else(|_| antiphon_protocol::LogName::Inbox(stand_in()));
    let len = match random.below(400) {
        0 => 65_536,
        1 => 20_000,
        _ => random.below(40),
    };
    let body = vec![b'h'; len as usize];
    let send = NewSend {
        client_message_id: uuid::Uuid::nil(),
        dseq: 0,
        kind: if random.per_mille(850) { EventKind::MESSAGE } else { EventKind(random.below(7) as u8) },
        content_type: [ContentType::Text, ContentType::Json, ContentType::Octets][random.index(3)],
        log: &log,
        act_as: None,
        envelope: &[],
        body: &body,
    };
    let frame = send.to_frame(1);
    debug_assert!(frame.len() >= HEADER_BYTES + SEND_FIXED_BYTES);
    frame[HEADER_BYTES..].to_vec()
}

fn stand_in() -> antiphon_protocol::UserId {
    // Invariant: a constant that is a valid id.
    #[expect(clippy::unwrap_used, reason = "a constant that is a valid id")]
    "guilty-0".parse().unwrap()
}
