//! The outbox: messages in order per log, from the application's call to the ACK or a final refusal.
//!
//! Each log has a lane. The written messages of a lane are its first ones; the others follow as the window allows.
//! When one is refused for now, the lane stops until all its written ones are answered (the broker refuses them with
//! `out_of_order`) and the wait is over; then everything is written again in order. The same happens after a
//! reconnect. `dseq` numbers what is written without holes: a message that was refused for good leaves none behind,
//! because what is written again is numbered anew from the first one.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    ErrorCode, LogName, Position,
    frames::{Ack, NewSend, SendBatch},
    limits::{BATCH_RECORDS_MAX, BODY_BYTES_MAX, ENVELOPE_BYTES_MAX},
};
use uuid::Uuid;

use crate::{
    client::OutboxLimits,
    error::{Outcome, Refusal, SendError, StopReason},
    input::CommandId,
    limits::{BATCH_BYTES_MAX, LANES_MAX, OUT_OF_ORDER_MAX, SENDS_IN_FLIGHT_MAX},
    link::{Link, Pending},
    new_message::NewMessage,
    output::{Output, Receipt, SendState},
    timers::Timer,
};

/// What a record of a batch takes besides its content, at most: length, fixed fields, names.
const RECORD_BYTES: usize = 256;

#[derive(Debug)]
struct Entry {
    id: CommandId,
    message: NewMessage,
    /// Given at the first write, when the broker's clock is known.
    client_message_id: Option<Uuid>,
    /// The batch that it is written with, if the broker takes batches.
    batch: Option<u64>,
    /// 0 before the first write.
    dseq: u64,
    /// The request that carries it now.
    request: Option<u32>,
    /// What became of an earlier write of it is unknown, so a later refusal does not mean that it was not stored.
    doubtful: bool,
}

/// How a lane recovers from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Open,
    /// The wait is not over.
    Waiting,
    /// The wait is over, but not all written messages are answered.
    Draining,
}

#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    next_dseq: u64,
    in_flight: usize,
    hold: Hold,
    /// Refusals since the last ACK.
    refusals: u32,
    /// Of them, refusals of the oldest message as out of order.
    out_of_order: u32,
    /// Whether the lane is in `Outbox::writable`.
    queued: bool,
}

/// A message that is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) id: CommandId,
    pub(crate) at: Position,
    /// Whether its sender, the session's user, has read up to it thereby.
    pub(crate) has_read: bool,
}

/// Whether the connection still serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    Fine,
    /// Client and broker disagree on what comes next; a new connection settles it.
    Reconnect,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    limits: OutboxLimits,
    lanes: BTreeMap<LogName, Lane>,
    /// Lanes with something to write, in turn.
    writable: VecDeque<LogName>,
    messages: usize,
    bytes: usize,
    in_flight: usize,
    /// Numbers given to batches.
    batches: u64,
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            lanes: BTreeMap::new(),
            writable: VecDeque::new(),
            messages: 0,
            bytes: 0,
            in_flight: 0,
            batches: 0,
        }
    }

    /// Takes a message, or tells why not.
    pub(crate) fn add(&mut self, link: &mut Link, id: CommandId, message: NewMessage) {
        self.push(link, id, message, None);
        self.write(link);
    }

    /// Takes messages that are written together, as far as they are for one log and fit a frame.
    pub(crate) fn add_batch(&mut self, link: &mut Link, messages: Vec<(CommandId, NewMessage)>) {
        let mut open: Option<(LogName, usize, usize)> = None;
        for (id, message) in messages {
            let length = weight(&message) + RECORD_BYTES;
            let fits = open.as_ref().is_some_and(|(log, records, bytes)| {
                *log == message.log && *records < BATCH_RECORDS_MAX && bytes + length <= BATCH_BYTES_MAX
            });
            let (records, bytes) = match &open {
                Some((_, records, bytes)) if fits => (*records, *bytes),
                _ => {
                    self.batches += 1;
                    (0, 0)
                }
            };
            open = Some((message.log.clone(), records + 1, bytes + length));
            self.push(link, id, message, Some(self.batches));
        }
        self.write(link);
    }

    fn push(&mut self, link: &mut Link, id: CommandId, message: NewMessage, batch: Option<u64>) {
        if let Err(error) = self.check(&message) {
            return link.emit(Output::Send { id, state: SendState::Failed(error) });
        }
        self.messages += 1;
        self.bytes += weight(&message);
        link.emit(Output::Send { id, state: SendState::Queued });
        let log = message.log.clone();
        let client_message_id = message.client_message_id;
        if self.lanes.len() >= LANES_MAX {
            self.lanes.retain(|_, lane| !lane.entries.is_empty());
        }
        let lane = self.lanes.entry(log.clone()).or_insert_with(Lane::new);
        let entry = Entry { id, message, client_message_id, batch, dseq: 0, request: None, doubtful: false };
        lane.entries.push_back(entry);
        self.enqueue(&log);
    }

    fn check(&self, message: &NewMessage) -> Result<(), SendError> {
        let too_large = |field, bytes, max| Err(SendError::TooLarge { field, bytes, max });
        if !message.kind.is_client_sent() {
            Err(SendError::Kind)
        } else if message.body.len() > BODY_BYTES_MAX {
            too_large("body", message.body.len(), BODY_BYTES_MAX)
        } else if message.envelope.len() > ENVELOPE_BYTES_MAX {
            too_large("envelope", message.envelope.len(), ENVELOPE_BYTES_MAX)
        } else if self.messages >= self.limits.messages || self.bytes + weight(message) > self.limits.bytes {
            Err(SendError::QueueFull { messages: self.messages, bytes: self.bytes })
        } else {
            Ok(())
        }
    }

    fn enqueue(&mut self, log: &LogName) {
        if let Some(lane) = self.lanes.get_mut(log)
            && !lane.queued
            && lane.hold == Hold::Open
            && lane.in_flight < lane.entries.len()
        {
            lane.queued = true;
            self.writable.push_back(log.clone());
        }
    }

    /// Writes what the window allows, one message or batch of each lane in turn.
    pub(crate) fn write(&mut self, link: &mut Link) {
        while link.ready && self.in_flight < SENDS_IN_FLIGHT_MAX {
            let Some(log) = self.writable.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&log) else { continue };
            lane.queued = false;
            let written = lane.write_next(link);
            if written > 0 {
                self.in_flight += written;
                self.enqueue(&log);
            }
        }
    }

    /// An ACK of the first message that waits for this request.
    pub(crate) fn acked(&mut self, link: &mut Link, log: &LogName, request: u32, ack: &Ack) -> Option<Acked> {
        let entry = self.settle(log, request)?;
        if let Some(lane) = self.lanes.get_mut(log) {
            (lane.refusals, lane.out_of_order) = (0, 0);
        }
        let receipt = Receipt {
            client_message_id: entry.client_message_id.unwrap_or_default(),
            event_id: ack.event_id,
            position: ack.position,
            msgno: ack.msgno,
            time_ms: ack.time_ms,
            duplicate: ack.duplicate,
        };
        link.emit(Output::Send { id: entry.id, state: SendState::Sent(receipt) });
        self.resume_drained(link, log);
        Some(Acked { id: entry.id, at: ack.position, has_read: entry.message.moves_cursor() })
    }

    /// How many messages wait for the answer to this request.
    pub(crate) fn written(&self, log: &LogName, request: u32) -> usize {
        let entries = self.lanes.get(log).map(|lane| lane.entries.iter());
        entries.into_iter().flatten().filter(|entry| entry.request == Some(request)).count()
    }

    /// A refusal of everything that the request carried.
    pub(crate) fn refused_all(&mut self, link: &mut Link, log: &LogName, request: u32, refusal: &Refusal) -> Verdict {
        let mut verdict = Verdict::Fine;
        for _ in 0..self.written(log, request) {
            if self.refused(link, log, request, refusal.clone()) == Verdict::Reconnect {
                verdict = Verdict::Reconnect;
            }
        }
        verdict
    }

    /// A refusal of the first message that waits for this request: it fails, or its lane waits and repeats.
    pub(crate) fn refused(&mut self, link: &mut Link, log: &LogName, request: u32, refusal: Refusal) -> Verdict {
        if !refusal.is_transient() {
            if let Some(entry) = self.settle(log, request) {
                let outcome = if entry.doubtful { Outcome::Unknown } else { refusal.outcome };
                let refusal = Refusal { outcome, ..refusal };
                link.emit(Output::Send { id: entry.id, state: SendState::Failed(SendError::Refused(refusal)) });
            }
            self.resume_drained(link, log);
            return Verdict::Fine;
        }
        let Some(lane) = self.lanes.get_mut(log) else { return Verdict::Fine };
        let Some(at) = lane.entries.iter().position(|entry| entry.request == Some(request)) else {
            return Verdict::Fine;
        };
        lane.entries[at].request = None;
        lane.entries[at].doubtful |= refusal.outcome == Outcome::Unknown;
        lane.in_flight -= 1;
        self.in_flight -= 1;
        let stuck = lane.hold(link, log, at, &refusal);
        self.resume_drained(link, log);
        if stuck { Verdict::Reconnect } else { Verdict::Fine }
    }

    /// Takes out a message that is settled for good.
    fn settle(&mut self, log: &LogName, request: u32) -> Option<Entry> {
        let lane = self.lanes.get_mut(log)?;
        let at = lane.entries.iter().position(|entry| entry.request == Some(request))?;
        let entry = lane.entries.remove(at)?;
        lane.in_flight -= 1;
        self.in_flight -= 1;
        self.messages -= 1;
        self.bytes -= weight(&entry.message);
        Some(entry)
    }

    /// The wait of a lane is over.
    pub(crate) fn due(&mut self, link: &mut Link, log: &LogName) {
        if let Some(lane) = self.lanes.get_mut(log)
            && lane.hold == Hold::Waiting
        {
            lane.hold = Hold::Draining;
            self.resume_drained(link, log);
        }
    }

    fn resume_drained(&mut self, link: &mut Link, log: &LogName) {
        if let Some(lane) = self.lanes.get_mut(log)
            && lane.hold == Hold::Draining
            && lane.in_flight == 0
        {
            lane.reopen();
            self.enqueue(log);
        }
        self.write(link);
    }

    /// The connection is lost: what was written will be written again.
    pub(crate) fn down(&mut self, link: &mut Link) {
        self.in_flight = 0;
        self.writable.clear();
        // The first `dseq` of a connection is its base, so a lane without messages has nothing to remember.
        self.lanes.retain(|_, lane| !lane.entries.is_empty());
        for (log, lane) in &mut self.lanes {
            link.timers.cancel(&Timer::Sends(log.clone()));
            for entry in &mut lane.entries {
                entry.doubtful |= entry.request.take().is_some();
            }
            (lane.in_flight, lane.queued, lane.out_of_order) = (0, false, 0);
            lane.reopen();
        }
        let logs: Vec<LogName> = self.lanes.keys().cloned().collect();
        logs.iter().for_each(|log| self.enqueue(log));
    }

    /// The client has stopped: everything fails.
    pub(crate) fn stop(&mut self, link: &mut Link, reason: &StopReason) {
        for entry in std::mem::take(&mut self.lanes).into_values().flat_map(|lane| lane.entries) {
            let state = SendState::Failed(SendError::Stopped(reason.clone()));
            link.emit(Output::Send { id: entry.id, state });
        }
        self.writable.clear();
        (self.messages, self.bytes, self.in_flight) = (0, 0, 0);
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            next_dseq: 1,
            in_flight: 0,
            hold: Hold::Open,
            refusals: 0,
            out_of_order: 0,
            queued: false,
        }
    }

    /// Writes the first message that is not written, with the rest of its batch. Returns how many messages.
    fn write_next(&mut self, link: &mut Link) -> usize {
        if self.hold != Hold::Open {
            return 0;
        }
        let unwritten = self.entries.iter().skip(self.in_flight);
        let batch = unwritten.clone().next().and_then(|entry| entry.batch).filter(|_| link.batches);
        let count = match batch {
            Some(batch) => unwritten.take_while(|entry| entry.batch == Some(batch)).count(),
            None => usize::from(self.in_flight < self.entries.len()),
        };
        let entries = self.entries.range_mut(self.in_flight..self.in_flight + count);
        let mut written: Vec<&mut Entry> = entries.collect();
        for entry in &mut written {
            entry.number(link, self.next_dseq);
        }
        if let Some(first) = written.first() {
            let pending = Pending::Send(first.message.log.clone());
            let mut sends: Vec<NewSend<'_>> = written.iter().map(|entry| entry.new_send()).collect();
            // A batch has one place in the order, named by its first record.
            sends.iter_mut().skip(1).for_each(|send| send.dseq = 0);
            let request = link.request(pending, |id| match sends.as_slice() {
                [send] => send.to_frame(id),
                sends => SendBatch::to_frame(id, sends),
            });
            written.iter_mut().for_each(|entry| entry.request = Some(request));
            self.next_dseq += 1;
            self.in_flight += count;
        }
        count
    }

    /// Stops the lane after a refusal of the message at `at`. True if it gets nowhere on this connection.
    fn hold(&mut self, link: &mut Link, log: &LogName, at: usize, refusal: &Refusal) -> bool {
        if self.hold != Hold::Open {
            return false;
        }
        if at == 0 && refusal.is(ErrorCode::OutOfOrder) {
            self.out_of_order += 1;
        }
        self.hold = Hold::Waiting;
        let delay = link.backoff(self.refusals).max(refusal.retry_after.unwrap_or_default());
        self.refusals += 1;
        link.set_timer(Timer::Sends(log.clone()), delay);
        self.out_of_order >= OUT_OF_ORDER_MAX
    }

    /// Makes ready to write everything again, numbered without holes from the first one that was written before.
    fn reopen(&mut self) {
        self.hold = Hold::Open;
        if let Some(base) = self.entries.front().map(|entry| entry.dseq).filter(|dseq| *dseq > 0) {
            self.next_dseq = base;
        }
    }
}

impl Entry {
    /// Gives it its place, which it may have had before, and at the first time its id.
    fn number(&mut self, link: &mut Link, dseq: u64) {
        let client_message_id = *self.client_message_id.get_or_insert_with(|| link.message_id());
        if std::mem::replace(&mut self.dseq, dseq) == 0 {
            link.emit(Output::Send { id: self.id, state: SendState::Sending { client_message_id } });
        }
    }

    fn new_send(&self) -> NewSend<'_> {
        let message = &self.message;
        NewSend {
            client_message_id: self.client_message_id.unwrap_or_default(),
            dseq: self.dseq,
            kind: message.kind,
            content_type: message.content_type,
            log: &message.log,
            act_as: message.act_as.as_ref(),
            envelope: &message.envelope,
            body: &message.body,
        }
    }
}

/// What a message counts for in the outbox.
fn weight(message: &NewMessage) -> usize {
    message.body.len() + message.envelope.len()
}
