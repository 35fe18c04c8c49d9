//! A session that sends until it is refused, and knows what it was told about every message.
//!
//! It is bare QUIC, because the SDK would repeat a refused message by itself.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_checker::{OpId, Outcome};
use antiphon_protocol::{
    ContentType, ErrorCode, EventKind, FrameType, LogName, RawFrame,
    control::{self, error},
    frames::{self, Ack, NewSend},
};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{
    chance::Chance,
    names::{MessageNumber, Seat, message_id},
    recorder::Recorder,
    wire::{Session, WireError},
};

/// Messages that wait for their answer.
const IN_FLIGHT: usize = 8;
/// Refusals in a row after which the disk counts as full.
const REFUSALS_IN_A_ROW: u32 = 20;
/// From a request to its answer, at most; more is a broken promise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a sender was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) acked: u64,
    /// Refused because the store is full.
    pub(crate) refused: u64,
    /// Refused behind such a one, because its log is being read anew.
    pub(crate) held_off: u64,
    /// Anything else.
    pub(crate) wrong: Option<String>,
}

/// When a sender is content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// So many refusals came one after the other.
    Full,
    /// So many messages were acknowledged.
    Acked(u64),
}

/// One member of one group, who sends to its log.
pub(crate) struct FullSender {
    pub(crate) session: Session,
    pub(crate) seat: Seat,
    pub(crate) log: LogName,
    pub(crate) recorder: Arc<Recorder>,
    /// Makes bodies that do not compress, so that the index takes space too.
    pub(crate) chance: Chance,
    pub(crate) body_bytes: usize,
    /// Number of its next message; senders count in steps, each from its own first.
    pub(crate) next: u32,
    pub(crate) step: u32,
    pub(crate) asked: BTreeMap<u32, (MessageNumber, OpId)>,
}

impl FullSender {
    /// Sends until it is content, or something is wrong, or the time is over.
    pub(crate) async fn run(&mut self, until: Until, deadline: Instant) -> Told {
        let (mut told, mut in_a_row) = (Told::default(), 0);
        loop {
            let is_content = match until {
                Until::Full => in_a_row >= REFUSALS_IN_A_ROW,
                Until::Acked(count) => told.acked >= count,
            };
            let is_over = is_content || Instant::now() > deadline;
            if is_over && self.asked.is_empty() {
                return told;
            }
            let step = if !is_over && self.asked.len() < IN_FLIGHT {
                self.ask().await.map(|()| None)
            } else {
                self.hear().await.map(Some)
            };
            match step {
                Ok(None) => {}
                Ok(Some(None)) => (told.acked, in_a_row) = (told.acked + 1, 0),
                Ok(Some(Some(refusal))) => {
                    if refusal.is_full {
                        told.refused += 1
                    } else {
                        told.held_off += 1
                    }
                    in_a_row += 1;
                    // What the broker asks of whom it refuses for a while.
                    sleep(refusal.wait / IN_FLIGHT as u32).await;
                }
                Err(wrong) => {
                    told.wrong = Some(wrong);
                    return told;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<(), String> {
        let number = MessageNumber(self.next);
        self.next += self.step;
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let client_message_id = message_id(number, unix_ms);
        let body: Vec<u8> = (0..self.body_bytes).map(|_| self.chance.below(256) as u8).collect();
        let send = NewSend {
            client_message_id,
            dseq: 0,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Octets,
            log: &self.log,
            act_as: None,
            envelope: &[],
            body: &body,
        };
        let id = self.session.next_id();
        let op = self.recorder.sending(self.seat, number, client_message_id, &body);
        self.asked.insert(id, (number, op));
        self.session.write(send.to_frame(id)).await.map_err(|error| told_by(&error))
    }

    /// The next answer: `None` for an acknowledgement.
    async fn hear(&mut self) -> Result<Option<ForAWhile>, String> {
        let frame: RawFrame = match timeout(ANSWER_TIMEOUT, self.session.answer()).await {
            Ok(frame) => frame.map_err(|error| told_by(&error))?,
            Err(_) => return Err("a message has no answer".into()),
        };
        let (number, op) = self.asked.remove(&frame.id).ok_or_else(|| format!("an answer to {}", frame.id))?;
        match frame.frame_type {
            FrameType::Ack => {
                let ack = Ack::decode(&frame.body).map_err(|error| error.to_string())?;
                self.recorder.sent(self.seat, number, op, Outcome::Ok { seq: ack.position.seq });
                Ok(None)
            }
            FrameType::Error => {
                let refusal = refused_for_a_while(&frame.body)?;
                self.recorder.sent(self.seat, number, op, Outcome::Refused);
                Ok(Some(refusal))
            }
            other => Err(format!("a message was answered with {}", other.name())),
        }
    }
}

/// A refusal that says to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ForAWhile {
    wait: Duration,
    /// Because the store is full.
    is_full: bool,
}

/// Reads a refusal, which must be one that a full store may give.
fn refused_for_a_while(body: &Bytes) -> Result<ForAWhile, String> {
    let refusal: control::Error = frames::decode_answer(body).map_err(|error| error.to_string())?;
    let is_full = refusal.number == ErrorCode::StoreFull as u32;
    let may_come = is_full || refusal.number == ErrorCode::Overloaded as u32;
    if may_come && refusal.outcome() == error::Outcome::NotApplied && refusal.retry_after_ms > 0 {
        Ok(ForAWhile { wait: Duration::from_millis(refusal.retry_after_ms.into()), is_full })
    } else {
        Err(format!("a message was refused with {refusal:?}"))
    }
}

fn told_by(error: &WireError) -> String {
    format!("a session was lost: {error}")
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::header::HEADER_BYTES;

    use super::*;

    #[test]
    fn only_a_full_store_may_refuse() {
        let right = control::Error { number: 1003, retry_after_ms: 200, ..Default::default() };
        let read = |error: control::Error| {
            refused_for_a_while(&frames::control(FrameType::Error, 1, &error).slice(HEADER_BYTES..))
        };
        let wait = Duration::from_millis(200);
        assert_eq!(read(right.clone()), Ok(ForAWhile { wait, is_full: true }));
        assert_eq!(read(control::Error { number: 1001, ..right.clone() }), Ok(ForAWhile { wait, is_full: false }));
        assert!(read(control::Error { number: 1004, ..right.clone() }).is_err());
        assert!(read(control::Error { retry_after_ms: 0, ..right.clone() }).is_err());
        assert!(read(control::Error { outcome: error::Outcome::Unknown.into(), ..right }).is_err());
    }
}
