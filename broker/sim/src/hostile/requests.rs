//! Good requests of every kind, as raw material: names from small pools, numbers from ordinary to extreme.

use antiphon_protocol::{
    FrameType,
    control::{self, Member, Position, fetch, subscribe::From},
};
use bytes::Bytes;
use prost::Message;

use crate::random::Random;

/// Users that hostile tokens name.
pub(super) const USERS: u64 = 12;
/// Conversations that are open to all of them.
const OPEN: u64 = 6;
/// Conversations that they make, and names of such that nobody made.
const GROUPS: u64 = 12;

/// One of the users.
pub(super) fn user(random: &mut Random) -> String {
    format!("guilty-{}", random.below(USERS))
}

/// An id of a conversation.
pub(super) fn conversation(random: &mut Random) -> String {
    match random.below(10) {
        0..6 => format!("open-{}", random.below(OPEN)),
        6..9 => format!("g-{}", random.below(GROUPS)),
        _ => ["", "~made", "no such", "witness-0"][random.index(4)].to_owned(),
    }
}

/// A name of a log.
pub(super) fn log(random: &mut Random) -> String {
    match random.below(12) {
        0..10 => format!("c:{}", conversation(random)),
        10 => format!("u:{}", user(random)),
        _ => ["", "c:", "x:open-0", "open-0"][random.index(4)].to_owned(),
    }
}

/// A number that means something, or one at an edge.
fn number(random: &mut Random) -> u64 {
    match random.below(8) {
        0..4 => random.below(20),
        4 => random.below(10_000),
        5 => u64::from(u32::MAX),
        6 => (1 << 53) + random.below(2),
        _ => u64::MAX - random.below(2),
    }
}

fn small(random: &mut Random) -> u32 {
    number(random) as u32
}

fn members(random: &mut Random) -> Vec<Member> {
    let count = if random.per_mille(20) { 300 } else { random.below(4) };
    (0..count).map(|_| Member { user: user(random), role: random.below(5) as i32 - 1, joined_seq: 0 }).collect()
}

/// The body of some request that a client may send in a running session.
pub(super) fn any(random: &mut Random) -> (FrameType, Vec<u8>) {
    match random.below(100) {
        0..12 => subscribe(random),
        12..18 => {
            let unsubscribe = control::Unsubscribe { handle: small(random) };
            (FrameType::Unsubscribe, unsubscribe.encode_to_vec())
        }
        18..24 => (FrameType::Fetch, fetch(random).encode_to_vec()),
        24..34 => {
            let cursor = control::Cursor {
                log: log(random),
                delivered: number(random),
                read: number(random),
                act_as: String::new(),
            };
            (FrameType::Cursor, cursor.encode_to_vec())
        }
        34..44 => (FrameType::Signal, signal(random).encode_to_vec()),
        44..48 => {
            let sync = control::Sync { after: conversation(random), limit: small(random) };
            (FrameType::Sync, sync.encode_to_vec())
        }
        48..74 => of_conversation(random),
        _ => own(random),
    }
}

fn subscribe(random: &mut Random) -> (FrameType, Vec<u8>) {
    let from = match random.below(4) {
        0 => Some(From::After(Position { epoch: random.below(3) as u32, seq: number(random) })),
        1 => Some(From::Last(small(random))),
        2 => Some(From::Tail(random.per_mille(500))),
        _ => None,
    };
    (FrameType::Subscribe, control::Subscribe { log: log(random), from }.encode_to_vec())
}

fn fetch(random: &mut Random) -> control::Fetch {
    control::Fetch {
        log: log(random),
        from: number(random),
        to: number(random),
        limit: random.below(8) as u32,
        backward: random.per_mille(500),
        at_ms: if random.per_mille(500) { 0 } else { number(random) },
        view: if random.per_mille(900) { fetch::View::Events.into() } else { random.below(4) as i32 },
    }
}

fn signal(random: &mut Random) -> control::Signal {
    let len = if random.per_mille(50) { 2_000 } else { random.below(60) };
    let data = Bytes::from(vec![7; len as usize]);
    control::Signal { log: log(random), kind: "typing".into(), data, ttl_ms: small(random) }
}

/// For ever, too short, and as short or as long as can be.
fn retention_s(random: &mut Random) -> u32 {
    [0, 59, 60, u32::MAX][random.index(4)]
}

fn of_conversation(random: &mut Random) -> (FrameType, Vec<u8>) {
    let conversation = conversation(random);
    let role = random.below(5) as i32 - 1;
    match random.below(10) {
        0 => {
            let create = control::ConversationCreate {
                conversation,
                kind: random.below(4) as i32,
                title: "t".repeat(random.index(40)),
                members: members(random),
                join_policy: random.below(3) as i32,
                act_as: if random.per_mille(100) { user(random) } else { String::new() },
                retention_s: retention_s(random),
                history: random.below(3) as i32,
            };
            (FrameType::ConversationCreate, create.encode_to_vec())
        }
        1 => (FrameType::ConversationGet, control::ConversationGet { conversation }.encode_to_vec()),
        2 => {
            let (title, join_policy) = (random.per_mille(500).then(|| "new".into()), Some(role));
            let retention_s = random.per_mille(300).then(|| retention_s(random));
            let history = random.per_mille(300).then(|| random.below(3) as i32);
            let update = control::ConversationUpdate { conversation, title, join_policy, retention_s, history };
            (FrameType::ConversationUpdate, update.encode_to_vec())
        }
        3 if random.per_mille(50) => {
            (FrameType::ConversationDelete, control::ConversationDelete { conversation }.encode_to_vec())
        }
        3 | 4 => {
            let add = control::MemberAdd { conversation, members: members(random), act_as: String::new() };
            (FrameType::MemberAdd, add.encode_to_vec())
        }
        5 => {
            let remove = control::MemberRemove { conversation, user: user(random) };
            (FrameType::MemberRemove, remove.encode_to_vec())
        }
        6 => {
            let set = control::MemberSetRole { conversation, user: user(random), role };
            (FrameType::MemberSetRole, set.encode_to_vec())
        }
        7 | 8 => (FrameType::Join, control::Join { conversation }.encode_to_vec()),
        _ => (FrameType::Leave, control::Leave { conversation }.encode_to_vec()),
    }
}

fn own(random: &mut Random) -> (FrameType, Vec<u8>) {
    match random.below(60) {
        0..10 => {
            let text = "x".repeat(random.index(200));
            let set = control::PresenceSet { status: random.below(6) as i32 - 1, text };
            (FrameType::PresenceSet, set.encode_to_vec())
        }
        10..20 => {
            let count = if random.per_mille(50) { 100 } else { random.below(5) };
            let users = (0..count).map(|_| user(random)).collect();
            (FrameType::PresenceSubscribe, control::PresenceSubscribe { users }.encode_to_vec())
        }
        20..35 => {
            let (pinned, muted) = (Some(random.per_mille(500)), None);
            let preferences = control::Preferences { conversation: conversation(random), pinned, muted };
            (FrameType::Preferences, preferences.encode_to_vec())
        }
        35..42 => {
            let block = control::Block { user: user(random), blocked: random.per_mille(300) };
            (FrameType::Block, block.encode_to_vec())
        }
        42..59 => {
            let event_id = Bytes::from(vec![random.number() as u8; random.index(18)]);
            let hide = control::Hide { log: log(random), event_id, seq: number(random) };
            (FrameType::Hide, hide.encode_to_vec())
        }
        _ => (FrameType::Revoke, control::Revoke { user: user(random) }.encode_to_vec()),
    }
}
