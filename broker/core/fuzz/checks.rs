//! What the fuzz target checks, apart from libFuzzer, so that a stable test can replay its corpus.

use antiphon_core::{
    Claims, ConnectionId, Held, Input, Output, ResumeKey, Shard, ShardConfig, ShardId, Time, TokenRefusal,
    claims::{ActorKind, Scopes},
};
use antiphon_protocol::{
    Class, Decoder, ErrorCode, FrameType, RawFrame, control, frames,
    limits::{FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX},
};
use antiphon_storage_contract::{Completion, Loaded, Op, Outcome};
use bytes::Bytes;
use std::time::Duration;

const START: Time = Time(1_800_000_000_000_000);
const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 1 };

/// The first 9 bytes are the token's verdict and sizes of chunks, the rest is what a client sends before it is known.
/// However it is cut, the same answers come; the connection ends with one registered error that was told, or the session
/// stands because its token was good; and nothing of it is left when it is gone.
pub(crate) fn handshake(data: &[u8]) {
    let Some((settings, stream)) = data.split_first_chunk::<9>() else { return };
    let sizes = settings[1..].iter().map(|size| usize::from(*size)).collect::<Vec<_>>();
    let one = Attempt::new(settings[0] % 4).run(stream, &sizes);
    // What exceeds the limit before authentication is noticed by the chunk, so the cuts matter there.
    if stream.len() <= PRE_AUTH_BYTES_MAX {
        let other = Attempt::new(settings[0] % 4).run(stream, &[stream.len()]);
        assert_eq!(one, other, "the cuts of the stream show in the answers");
    }
}

/// A shard with one connection.
struct Attempt {
    shard: Shard,
    verdict: u8,
    /// Verdicts that come later than anything else.
    late: Vec<Input>,
    told: Vec<RawFrame>,
    closed: Option<ErrorCode>,
    was_verified: bool,
}

impl Attempt {
    fn new(verdict: u8) -> Self {
        let resume_key = ResumeKey::new([7; 32]);
        let config = ShardConfig {
            shard: ShardId(0),
            shards: 1,
            seed: [1; 32],
            resume_key,
            stands_by: false,
            shares_presence: false,
        };
        let mut attempt = Self {
            shard: Shard::new(config),
            verdict,
            late: Vec::new(),
            told: Vec::new(),
            closed: None,
            was_verified: false,
        };
        attempt.settle(START);
        attempt
    }

    fn run(mut self, stream: &[u8], sizes: &[usize]) -> (Vec<RawFrame>, Option<ErrorCode>) {
        let before = self.shard.held();
        self.handle(START, Input::ConnectionOpened { connection: CONNECTION });
        let mut rest = Bytes::copy_from_slice(stream);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            // As a transport does: nothing is handed over that is not wanted.
            if self.shard.wants_input(CONNECTION) {
                let bytes = rest.split_to((*size).max(1).min(rest.len()));
                let chunk_len = bytes.len();
                self.handle(START, Input::Received { connection: CONNECTION, bytes });
                let bound = if self.was_verified { FRAME_BYTES_MAX } else { PRE_AUTH_BYTES_MAX };
                assert!(self.shard.held().unread_bytes <= bound + chunk_len);
            } else {
                break;
            }
        }
        let late = START + Duration::from_secs(6);
        self.settle(late);
        self.check(!self.shard.is_established(CONNECTION));
        let is_established = self.shard.is_established(CONNECTION);
        assert!(is_established || self.closed.is_some(), "after six seconds it is known or gone");
        assert!(!is_established || self.was_verified, "nobody is let in without a good token");
        self.handle(late, Input::ConnectionClosed { connection: CONNECTION });
        for verdict in std::mem::take(&mut self.late) {
            self.handle(late, verdict);
        }
        // Presence ends last, after its grace.
        self.settle(late + Duration::from_secs(20));
        let left = Held { logs: before.logs, ..self.shard.held() };
        assert_eq!(left, before, "what is left of a connection that is gone");
        (self.told, self.closed)
    }

    /// The farewell names the number with which the connection is closed, and nothing follows it.
    fn check(&self, is_gone: bool) {
        let farewell = self.told.iter().position(|frame| frame.frame_type == FrameType::Error && frame.id == 0);
        let Some(code) = self.closed else {
            return assert_eq!(farewell, None, "a farewell without an end");
        };
        assert!(is_gone);
        match farewell {
            Some(at) => {
                let error: control::Error = frames::decode_answer(&self.told[at].body).expect("an ERROR that reads");
                assert_eq!((error.number, at), (code as u32, self.told.len() - 1));
            }
            // BYE is answered instead.
            None => {
                assert_eq!((code, self.told.last().map(|ok| ok.frame_type)), (ErrorCode::Closed, Some(FrameType::Ok)))
            }
        }
    }

    fn handle(&mut self, now: Time, input: Input) {
        self.shard.handle(now, input);
        self.settle(now);
    }

    fn settle(&mut self, now: Time) {
        loop {
            self.shard.end_turn(now);
            let mut is_idle = true;
            while let Some(output) = self.shard.poll_output() {
                is_idle = false;
                self.perform(now, output);
            }
            while let Some(connection) = self.shard.poll_writable() {
                self.write(connection);
            }
            if is_idle && !self.shard.has_work() {
                return;
            }
        }
    }

    fn perform(&mut self, now: Time, output: Output) {
        match output {
            Output::Store { op, token } => {
                self.shard.handle(now, Input::Stored(Completion { token, result: Ok(stored(&op)) }));
            }
            Output::Verify { ticket, token } => {
                let refusal = TokenRefusal { expired: self.verdict == 2, reason: "no".into() };
                let result = if self.verdict == 0 { Ok(claims(&token.0)) } else { Err(refusal) };
                self.was_verified |= result.is_ok();
                let verdict = Input::TokenVerified { ticket, result };
                if self.verdict == 3 { self.late.push(verdict) } else { self.shard.handle(now, verdict) }
            }
            Output::Explained(_) | Output::Presence(_) => {}
            Output::Close { code, .. } => assert_eq!(self.closed.replace(code), None, "closed twice"),
        }
    }

    /// Takes what waits for the client.
    fn write(&mut self, connection: ConnectionId) {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let Some(outbox) = self.shard.outbox_mut(connection) else { return };
        for class in Class::ALL {
            while let Some(bytes) = outbox.lane_mut(class).pop() {
                if class == Class::Control {
                    decoder.push(bytes);
                }
            }
        }
        while let Some(frame) = decoder.next_frame().expect("the broker's frames read") {
            self.told.push(frame);
        }
        if self.shard.awaits_room(connection) {
            self.shard.written(connection);
        }
    }
}

/// A store that is always empty.
fn stored(op: &Op) -> Outcome {
    match op {
        Op::Load { .. } => Outcome::Loaded(Loaded { epoch: 1, floor: 1, head: 0, checkpoint: None, tail: Vec::new() }),
        Op::Read { .. } => Outcome::Rows(Vec::new()),
        Op::FindTime { .. } => Outcome::Position(1),
        Op::FindDuplicate { .. } => Outcome::Row(None),
        Op::GetRecord { .. } => Outcome::Record(None),
        Op::ScanRecords { .. } => Outcome::Records(Vec::new()),
        _ => Outcome::Done,
    }
}

/// A token is good for the user whom it names, or for a nobody.
fn claims(token: &str) -> Claims {
    let nobody = || "nobody".parse().expect("a valid id");
    Claims {
        tenant: "acme".parse().expect("a valid id"),
        user: token.parse().unwrap_or_else(|_| nobody()),
        kind: ActorKind::User,
        device: None,
        name: None,
        grants: Vec::new(),
        scopes: Scopes::NONE,
        issued_at_ms: 1,
        expires_at_ms: 1_900_000_000_000,
        token_id: "t".into(),
    }
}
