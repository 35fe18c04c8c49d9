//! SEND_BATCH and IMPORT at the log's owner: their records are requests like any other send, one behind the other in the queue of the
//! log, and their results are gathered into one answer.
//!
//! Invariants: nothing comes between two records of a batch, because they enter the queue together; a batch is answered
//! once, when the last of its records has a result, which for a new one is when its row is durable; behind a record that
//! is refused for now no record is carried out. Each record carries the `dseq` of the batch, so that the batch holds one
//! place among the sends of its connection.

use std::collections::BTreeMap;

use antiphon_protocol::{
    ErrorCode, FrameType, control,
    frames::{self, Ack},
};
use bytes::Bytes;

use super::{Log, answer, sender};
use crate::{
    effects::Effects,
    limits::LOG_WAITING_MAX,
    refusal::Refusal,
    seldom::Empty,
    shard_message::{Operation, Origin, Record, Request},
};

/// A batch that is not answered yet.
#[derive(Debug)]
struct Batch {
    origin: Origin,
    results: Vec<Option<control::BatchResult>>,
    missing: usize,
    /// A record was refused for now; what is behind it is not carried out.
    is_stopped: bool,
}

/// The open batches of one log. Bounded by the queue that their records wait in and the rows in flight.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: BTreeMap<u64, Batch>,
}

impl Empty for Batches {
    fn empty() -> &'static Self {
        static EMPTY: Batches = Batches { open: BTreeMap::new() };
        &EMPTY
    }
}

impl Batches {
    /// Whether an earlier record of the batch was refused for now.
    pub(super) fn is_stopped(&self, record: Record) -> bool {
        self.open.get(&record.batch).is_some_and(|batch| batch.is_stopped)
    }

    /// Whether every batch is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Log {
    /// Queues the records of a batch, all or none.
    pub(super) fn queue_batch(&mut self, fx: &mut Effects, mut request: Box<Request>) {
        let records = request.operation.take_records();
        if self.waiting.len() + records.len() > LOG_WAITING_MAX {
            let refusal = Refusal::new(ErrorCode::Overloaded, "too many requests wait for this log");
            let place = (records.first().map_or(0, |(first, _)| first.dseq), None);
            return self.refuse_send(fx, request.origin, place, &refusal);
        }
        let (id, count) = (fx.next_number(), records.len());
        let open = Batch { origin: request.origin, results: vec![None; count], missing: count, is_stopped: false };
        self.batches.open.insert(id, open);
        let dseq = records.first().map_or(0, |(first, _)| first.dseq);
        for (index, (mut send, original_time_ms)) in records.into_iter().enumerate() {
            send.dseq = dseq;
            self.waiting.push_back(Box::new(Request {
                origin: request.origin,
                actor: request.actor.clone(),
                log: request.log.clone(),
                key: request.key,
                operation: Operation::Record(send, Record { batch: id, index, original_time_ms }),
            }));
        }
        self.drain(fx);
    }

    /// A send is durable, or was before: answers it, or the batch if it was the last of one.
    pub(super) fn acknowledge(&mut self, fx: &mut Effects, origin: Origin, record: Option<Record>, ack: &Ack) {
        let Some(record) = record else { return answer(fx, origin, ack.to_frame(origin.request_id)) };
        let result = control::BatchResult {
            position: Some(control::Position { epoch: ack.position.epoch, seq: ack.position.seq }),
            event_id: Bytes::copy_from_slice(ack.event_id.as_bytes()),
            msgno: ack.msgno,
            time_ms: ack.time_ms,
            duplicate: ack.duplicate,
            error: None,
        };
        self.add_result(fx, record, result);
    }

    /// A send is refused: takes its place among the sends of its connection, and answers it or its batch.
    pub(super) fn refuse_send(
        &mut self,
        fx: &mut Effects,
        origin: Origin,
        place: (u64, Option<Record>),
        refusal: &Refusal,
    ) {
        fx.refused(refusal.code);
        let (dseq, record) = place;
        let Some(record) = record else {
            self.order.refused(sender(origin), dseq, refusal.is_transient());
            return answer(fx, origin, refusal.to_frame(origin.request_id));
        };
        let is_stopped = self.batches.is_stopped(record);
        if !is_stopped {
            self.order.refused(sender(origin), dseq, refusal.is_transient());
        }
        // A row that was on its way to disk keeps its own outcome, which may be unknown.
        let skipped = Refusal::new(ErrorCode::NotApplied, "an earlier record of the batch was refused");
        let refusal = if is_stopped && !refusal.is_outcome_unknown { &skipped } else { refusal };
        if let Some(batch) = self.batches.open.get_mut(&record.batch) {
            batch.is_stopped |= refusal.is_transient();
        }
        self.add_result(fx, record, control::BatchResult { error: Some(refusal.to_control()), ..Default::default() });
    }

    fn add_result(&mut self, fx: &mut Effects, record: Record, result: control::BatchResult) {
        let Some(batch) = self.batches.open.get_mut(&record.batch) else { return };
        let Some(slot) = batch.results.get_mut(record.index) else { return };
        if slot.replace(result).is_none() {
            batch.missing -= 1;
        }
        if batch.missing > 0 {
            return;
        }
        let Some(batch) = self.batches.open.remove(&record.batch) else { return };
        let body = control::BatchAck { results: batch.results.into_iter().flatten().collect() };
        answer(fx, batch.origin, frames::control(FrameType::BatchAck, batch.origin.request_id, &body));
    }
}
