//! A client that means well: it sends, follows what the witnesses send, and notices when it is kept waiting.

use std::time::{Duration, Instant};

use antiphon_core::{Routing, ShardId};
use antiphon_protocol::{
    ContentType, EventKind, FrameType, LogKey, LogName, Row, VERSION,
    control::{self, subscribe::From},
    frames::{self, Ack, NewSend},
};
use bytes::{Bytes, BytesMut};
use uuid::Builder;

use super::{peer::Peer, rig::SHARDS};
use crate::{clock::Moment, tokens};

/// From a send to its acknowledgement, and to its event at every witness, at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between an answer and the next send.
const PAUSE: Duration = Duration::from_millis(100);

/// The log to which the witness of a shard sends, owned by that shard, and its key.
pub(super) fn log(shard: usize) -> (LogName, LogKey) {
    let routing = Routing::new(SHARDS as u16);
    // Invariants: the names are valid, and one of them is the shard's before long.
    #[expect(clippy::unwrap_used, reason = "valid names without an end")]
    (0..)
        .map(|n| format!("c:witness-{n}").parse::<LogName>().unwrap())
        .map(|name| (name.clone(), name.key(&"sim".parse().unwrap())))
        .find(|(_, key)| routing.owner(*key) == ShardId(shard as u16))
        .unwrap()
}

/// The witness of one shard.
#[derive(Debug)]
pub(super) struct Witness {
    /// Its connection.
    pub(super) peer: Peer,
    shard: usize,
    has_greeted: bool,
    /// Of each log: its handle, once it follows it, and the last position that came.
    follows: Vec<Option<(u32, u64)>>,
    request_id: u32,
    asked: Option<(u32, Moment)>,
    acked: u64,
    next: Moment,
    /// Sends that were acknowledged and came back.
    pub(super) pings: u64,
    /// What the broker did to it.
    pub(super) complaint: Option<String>,
}

impl Witness {
    /// The witness of a shard.
    pub(super) fn new(peer: Peer, shard: usize) -> Self {
        Self {
            peer,
            shard,
            has_greeted: false,
            follows: vec![None; SHARDS],
            request_id: 10,
            asked: None,
            acked: 0,
            next: Moment::default(),
            pings: 0,
            complaint: None,
        }
    }

    /// Whether it follows every log.
    pub(super) fn is_ready(&self) -> bool {
        self.follows.iter().all(Option::is_some)
    }

    /// Position of the last send that was acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The last position of a log that has come.
    pub(super) fn seen(&self, shard: usize) -> u64 {
        self.follows[shard].map_or(0, |(_, seen)| seen)
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.asked.is_none()
    }

    /// Does what it does next. `are_all_served`: every witness has what this one has sent.
    pub(super) fn step(
        &mut self,
        now: Moment,
        at: Instant,
        sends: bool,
        are_all_served: bool,
        out: &mut Vec<BytesMut>,
    ) {
        while let Some(frame) = self.peer.heard.pop_front() {
            self.hear(&frame);
        }
        if let Some(reason) = self.peer.lost.take() {
            self.complain(format!("was lost: {reason}"));
        }
        if self.peer.is_connected && !self.has_greeted {
            self.has_greeted = true;
            self.greet(now);
        }
        match self.asked {
            Some((_, since)) if now > since + PATIENCE => {
                self.complain(format!("has waited since {since:?} for its ACK or its events, now is {now:?}"));
            }
            Some((0, _)) if are_all_served => {
                (self.asked, self.next) = (None, now + PAUSE);
                self.pings += 1;
            }
            None if sends && self.is_ready() && now >= self.next => self.send(now),
            _ => {}
        }
        self.peer.step(at, out);
    }

    fn complain(&mut self, what: String) {
        self.complaint.get_or_insert(format!("the witness of shard {} {what}", self.shard));
    }

    fn greet(&mut self, now: Moment) {
        let hello = control::Hello {
            versions: vec![VERSION],
            token: tokens::token(tokens::MANAGER, now.unix_us() / 1_000 + 1_000_000_000, 1),
            device: format!("witness-{}", self.shard),
            sender_instance: Bytes::from(vec![self.shard as u8 + 1; 16]),
            ..control::Hello::default()
        };
        self.peer.write(frames::control(FrameType::Hello, 1, &hello).to_vec());
        for shard in 0..SHARDS {
            let subscribe = control::Subscribe { log: log(shard).0.to_string(), from: Some(From::Tail(true)) };
            self.peer.write(frames::control(FrameType::Subscribe, 2 + shard as u32, &subscribe).to_vec());
        }
    }

    fn send(&mut self, now: Moment) {
        self.request_id += 1;
        let mut random = [self.shard as u8; 10];
        random[..4].copy_from_slice(&self.request_id.to_le_bytes());
        let send = NewSend {
            client_message_id: Builder::from_unix_timestamp_millis(now.unix_us() / 1_000, &random).into_uuid(),
            dseq: 0,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            log: &log(self.shard).0,
            act_as: None,
            envelope: &[],
            body: b"still here",
        };
        self.peer.write(send.to_frame(self.request_id).to_vec());
        self.asked = Some((self.request_id, now));
    }

    fn hear(&mut self, frame: &antiphon_protocol::RawFrame) {
        match frame.frame_type {
            FrameType::Ack => match (Ack::decode(&frame.body), self.asked) {
                (Ok(ack), Some((id, since))) if id == frame.id && ack.position.seq > self.acked => {
                    self.acked = ack.position.seq;
                    // What is left to wait for are the events.
                    self.asked = Some((0, since));
                }
                (ack, asked) => self.complain(format!("got {ack:?} for request {} and had asked {asked:?}", frame.id)),
            },
            FrameType::Attach => match frames::decode_answer::<control::Attach>(&frame.body) {
                Ok(attach) => self.follows[frame.id as usize - 2] = Some((attach.handle, attach.live_from - 1)),
                Err(error) => self.complain(format!("cannot read its ATTACH: {error}")),
            },
            FrameType::Event => {
                let seq = Row::new(frame.body.clone()).map_or(0, |row| row.seq());
                let place = self.follows.iter_mut().flatten().find(|(handle, _)| *handle == frame.id);
                match place {
                    Some((_, seen)) if *seen + 1 == seq => *seen = seq,
                    place => {
                        let place = place.copied();
                        self.complain(format!("got position {seq} of handle {}, knows {place:?}", frame.id));
                    }
                }
            }
            FrameType::Welcome | FrameType::Open => {}
            other => self.complain(format!("got {} for {}", other.name(), frame.id)),
        }
    }
}
