//! SUBSCRIBE at the log's owner: one atomic answer that says what is owed and where live events begin.

use antiphon_protocol::{
    FrameType, LogName, Row,
    control::{self, attach::Reset},
    frames,
    limits::{CURSORS_AT_HANDOVER_MEMBERS_MAX, INLINE_BYTES_MAX, INLINE_ROWS_MAX},
};
use bytes::Bytes;

use super::{Contents, Log};
use crate::{
    effects::Effects,
    shard_message::{Attached, Request, Start},
};

/// What a hand-over owes.
struct Handover {
    /// The reader's.
    floor: u64,
    replay_from: u64,
    live_from: u64,
    reset: Reset,
    inlined: Option<Vec<Row>>,
}

impl Log {
    pub(super) fn subscribe(&mut self, fx: &mut Effects, request: &Request, start: Start, inline_bytes_max: usize) {
        let (contents, floor) = match self.readable(request, FrameType::Subscribe) {
            Ok(readable) => readable,
            Err(refusal) => return self.refuse(fx, request, &refusal),
        };
        let handover = hand_over(contents, floor, start, inline_bytes_max.min(INLINE_BYTES_MAX));
        let attach = self.attach(&request.log, &handover);
        let mut out: Vec<Bytes> = vec![frames::control(FrameType::Attach, request.origin.request_id, &attach)];
        let inlined = handover.inlined.iter().flatten();
        out.extend(inlined.map(|row| frames::event(self.handle, row)));
        let (origin, handle, key) = (request.origin, self.handle, self.key);
        self.attached(fx, Attached { origin, handle, key, live_from: handover.live_from, frames: out });
    }

    fn attach(&self, name: &LogName, handover: &Handover) -> control::Attach {
        let super::State::Ready(contents) = &self.state else { return control::Attach::default() };
        let with_cursors = contents.conversation.member_count() <= CURSORS_AT_HANDOVER_MEMBERS_MAX;
        control::Attach {
            handle: self.handle,
            log: name.to_string(),
            epoch: contents.epoch,
            live_from: handover.live_from,
            replay_from: handover.replay_from,
            inlined: handover.inlined.is_some(),
            head: contents.head,
            floor: handover.floor,
            head_msgno: contents.head_msgno,
            reset: handover.reset.into(),
            cursors: if with_cursors { contents.cursors.to_control() } else { Vec::new() },
        }
    }
}

fn hand_over(contents: &Contents, floor: u64, start: Start, inline_bytes_max: usize) -> Handover {
    let live_from = contents.head + 1;
    let (wanted, reset) = match start {
        Start::Tail => (live_from, Reset::None),
        Start::Last(n) => (live_from.saturating_sub(n.into()), Reset::None),
        // A position of another epoch, or beyond the head, was never given out in this history.
        Start::After { epoch, seq } if (epoch != contents.epoch && seq > 0) || seq > contents.head => {
            (floor, Reset::EpochChanged)
        }
        Start::After { seq, .. } if seq > 0 && seq + 1 < floor => (floor, Reset::HistoryGone),
        Start::After { seq, .. } => (seq + 1, Reset::None),
    };
    let replay_from = wanted.clamp(floor.min(live_from), live_from);
    let inlined = inline(contents, replay_from, live_from, inline_bytes_max);
    Handover { floor, replay_from, live_from, reset, inlined }
}

/// The rows that are owed, if they are few and in memory.
fn inline(contents: &Contents, from: u64, live_from: u64, bytes_max: usize) -> Option<Vec<Row>> {
    if from == live_from {
        return Some(Vec::new());
    }
    if live_from - from > INLINE_ROWS_MAX {
        return None;
    }
    let rows = contents.tail.since(from)?;
    let bytes: usize = rows.clone().map(|row| row.bytes().len()).sum();
    (bytes <= bytes_max).then(|| rows.cloned().collect())
}
