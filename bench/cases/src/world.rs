//! A shard with a store in memory and sessions that follow one conversation: what the broker's logic costs, without
//! sockets, QUIC and disk.

use antiphon_core::{
    Claims, ConnectionId, Input, Output, ResumeKey, Shard, ShardConfig, ShardId, Time,
    claims::{ActorKind, Scopes},
};
use antiphon_protocol::{
    Class, ContentType, EventKind, FrameType, LogName, TenantId, VERSION,
    control::{self, subscribe::From},
    frames::{self, NewSend},
    header::HEADER_BYTES,
    limits::MEMBERS_PER_REQUEST_MAX,
};
use antiphon_storage::{EventLog, memory::MemoryLog};
use bytes::Bytes;
use uuid::Uuid;

const START_MS: u64 = 1_800_000_000_000;
/// Virtual time that one turn takes.
const TURN_US: u64 = 100;
const LOG: &str = "c:bench";

/// The shard, its store, and who is connected.
#[derive(Debug)]
pub(crate) struct World {
    shard: Shard,
    store: MemoryLog,
    now: Time,
    log: LogName,
    members: u32,
    request_id: u32,
    sent: u64,
    body: Bytes,
}

impl World {
    /// One user who sends, and `members` who follow the same conversation. Bodies have `bytes` bytes.
    pub(crate) fn new(members: u32, bytes: usize) -> Self {
        let config = ShardConfig {
            shard: ShardId(0),
            shards: 1,
            seed: [1; 32],
            resume_key: ResumeKey::new([2; 32]),
            stands_by: false,
            shares_presence: false,
        };
        let mut world = Self {
            shard: Shard::new(config),
            store: MemoryLog::new(),
            now: Time::from_unix_ms(START_MS),
            log: log(),
            members,
            request_id: 0,
            sent: 0,
            body: vec![b'x'; bytes].into(),
        };
        for member in 0..=members {
            world.connect(member);
        }
        world.make_conversation();
        for member in 1..=members {
            world.subscribe(member, From::Tail(true));
        }
        world
    }

    fn connect(&mut self, member: u32) {
        let connection = connection(member);
        self.shard.handle(self.now, Input::ConnectionOpened { connection });
        let sender_instance = Bytes::copy_from_slice(&(u128::from(member) + 1).to_be_bytes());
        let hello =
            control::Hello { versions: vec![VERSION], token: user(member), sender_instance, ..Default::default() };
        self.request(member, FrameType::Hello, &hello);
    }

    fn make_conversation(&mut self) {
        let conversation = LOG.trim_start_matches("c:").to_owned();
        let create = control::ConversationCreate { conversation: conversation.clone(), ..Default::default() };
        self.request(0, FrameType::ConversationCreate, &create);
        let users: Vec<String> = (1..=self.members).map(user).collect();
        for chunk in users.chunks(MEMBERS_PER_REQUEST_MAX) {
            let members =
                chunk.iter().map(|user| control::Member { user: user.clone(), ..Default::default() }).collect();
            let add = control::MemberAdd { conversation: conversation.clone(), members, ..Default::default() };
            self.request(0, FrameType::MemberAdd, &add);
        }
    }

    /// Lets a member follow the conversation, anew if it did. Returns the bytes that it was sent.
    pub(crate) fn subscribe(&mut self, member: u32, from: From) -> usize {
        self.request(member, FrameType::Subscribe, &control::Subscribe { log: LOG.to_owned(), from: Some(from) })
    }

    /// Lets a member read the newest `rows` rows. Returns the bytes that it was sent.
    pub(crate) fn fetch(&mut self, member: u32, rows: u32) -> usize {
        let fetch = control::Fetch { log: LOG.to_owned(), limit: rows, backward: true, ..Default::default() };
        self.request(member, FrameType::Fetch, &fetch)
    }

    /// Where the log ends, as a member who has all of it would say it.
    pub(crate) fn head(&mut self) -> control::Position {
        // Of the log that this world made: epoch 1, one row per change and message.
        let changes = 1 + u64::from(self.members).div_ceil(MEMBERS_PER_REQUEST_MAX as u64);
        control::Position { epoch: 1, seq: changes + self.sent }
    }

    /// The first user sends `count` messages in one turn. Returns the bytes that went to everybody, acknowledgements
    /// included.
    pub(crate) fn send(&mut self, count: u32) -> usize {
        for _ in 0..count {
            let frame = self.next_send();
            self.shard.handle(self.now, Input::Received { connection: connection(0), bytes: frame });
        }
        self.settle()
    }

    fn next_send(&mut self) -> Bytes {
        self.sent += 1;
        self.request_id += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.sent.to_be_bytes());
        let id: Uuid = uuid::Builder::from_unix_timestamp_millis(self.now.unix_ms(), &random).into_uuid();
        let send = NewSend {
            client_message_id: id,
            dseq: self.sent,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            log: &self.log,
            act_as: None,
            envelope: &[],
            body: &self.body,
        };
        send.to_frame(self.request_id)
    }

    fn request(&mut self, member: u32, frame_type: FrameType, body: &impl Body) -> usize {
        self.request_id += 1;
        let bytes = body.frame(frame_type, self.request_id);
        self.shard.handle(self.now, Input::Received { connection: connection(member), bytes });
        self.settle()
    }

    /// Turns until nothing moves any more, as a shard's thread would.
    fn settle(&mut self) -> usize {
        let mut written = 0;
        let mut completions = Vec::new();
        loop {
            self.now = Time(self.now.0 + TURN_US);
            self.store.poll_completions(&mut completions);
            let mut moved = !completions.is_empty();
            for completion in completions.drain(..) {
                self.shard.handle(self.now, Input::Stored(completion));
            }
            self.shard.end_turn(self.now);
            moved |= self.perform();
            let bytes = self.write();
            written += bytes;
            if !moved && bytes == 0 && !self.shard.has_work() {
                return written;
            }
        }
    }

    fn perform(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.shard.poll_output() {
            moved = true;
            match output {
                Output::Store { op, token } => self.store.submit(op, token),
                Output::Verify { ticket, token } => {
                    let result = Ok(claims(&token.0));
                    self.shard.handle(self.now, Input::TokenVerified { ticket, result });
                }
                Output::Close { connection, code } => panic!("the shard closes {connection:?} with {code:?}"),
                Output::Presence(op) => panic!("presence is not shared: {op:?}"),
                Output::Explained(explained) => panic!("nobody asked for {explained:?}"),
            }
        }
        moved
    }

    /// Takes everything out of the outboxes, as a transport with room would. Returns the bytes.
    fn write(&mut self) -> usize {
        let mut written = 0;
        while let Some(connection) = self.shard.poll_writable() {
            let Some(outbox) = self.shard.outbox_mut(connection) else { continue };
            for class in Class::ALL {
                while let Some(frame) = outbox.lane_mut(class).pop() {
                    assert_ne!(frame[HEADER_TYPE_AT], FrameType::Error as u8, "the shard refused a request");
                    written += frame.len();
                }
            }
            if self.shard.awaits_room(connection) {
                self.shard.written(connection);
            }
        }
        written
    }
}

/// Where a frame's header names its type.
const HEADER_TYPE_AT: usize = 4;
const _: () = assert!(HEADER_TYPE_AT < HEADER_BYTES);

/// A Protobuf body, without its crate.
trait Body {
    fn frame(&self, frame_type: FrameType, id: u32) -> Bytes;
}

macro_rules! bodies {
    ($($body:ident),+) => {
        $(impl Body for control::$body {
            fn frame(&self, frame_type: FrameType, id: u32) -> Bytes {
                frames::control(frame_type, id, self)
            }
        })+
    };
}

bodies!(Hello, ConversationCreate, MemberAdd, Subscribe, Fetch);

fn connection(member: u32) -> ConnectionId {
    ConnectionId { slot: member, generation: 0 }
}

fn user(member: u32) -> String {
    format!("user{member}")
}

/// The log of every world.
pub(crate) fn log() -> LogName {
    // Invariant: a constant that is a valid name.
    #[expect(clippy::unwrap_used, reason = "a valid constant")]
    LOG.parse().unwrap()
}

/// What a token proves: here it is the user's name.
fn claims(token: &str) -> Claims {
    // Invariant: names that this module made.
    #[expect(clippy::unwrap_used, reason = "valid names")]
    let (tenant, user) = (TenantId::new("bench").unwrap(), token.parse().unwrap());
    Claims {
        tenant,
        user,
        kind: ActorKind::User,
        device: None,
        name: None,
        grants: Vec::new(),
        scopes: Scopes::default(),
        issued_at_ms: START_MS,
        expires_at_ms: START_MS + 24 * 3_600_000,
        token_id: token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_every_member() {
        let mut world = World::new(300, 200);
        let one = world.send(1);
        // At least the body to each of them; nothing but one acknowledgement to the sender.
        assert!((300 * 200..300 * 400).contains(&one), "{one}");
        assert_eq!(world.send(3), one * 3);
    }

    #[test]
    fn a_resumed_reader_gets_what_it_missed() {
        let mut world = World::new(2, 200);
        let before = world.head();
        let nothing_missed = world.subscribe(1, From::After(before));
        world.send(5);
        let five_missed = world.subscribe(1, From::After(before));
        assert!(five_missed >= nothing_missed + 5 * 200, "{five_missed} after {nothing_missed}");
        assert!(world.fetch(2, 5) >= 5 * 200);
    }
}
