//! The outbox: messages in order per log, from the application's call to the ACK or a final refusal.
//!
//! Each log has a lane. The written messages of a lane are its first ones; the others follow as the window allows.
//! When one is refused for now, the lane stops until all its written ones are answered (the broker refuses them with
//! `out_of_order`) and the wait is over; then everything is written again in order. The same happens after a
//! reconnect. `dseq` numbers what is written without holes: a message that was refused for good leaves none behind,
//! because what is written again is numbered anew from the first one.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    ErrorCode, LogName,
    frames::{Ack, NewSend},
    limits::{BODY_BYTES_MAX, ENVELOPE_BYTES_MAX},
};
use uuid::Uuid;

use crate::{
    client::OutboxLimits,
    error::{Outcome, Refusal, SendError, StopReason},
    input::{CommandId, NewMessage},
    limits::{LANES_MAX, OUT_OF_ORDER_MAX, SENDS_IN_FLIGHT_MAX},
    link::{Link, Pending},
    output::{Output, Receipt, SendState},
    timers::Timer,
};

#[derive(Debug)]
struct Entry {
    id: CommandId,
    message: NewMessage,
    /// Given at the first write, when the broker's clock is known.
    client_message_id: Option<Uuid>,
    /// 0 before the first write.
    dseq: u64,
    /// The request that carries it now.
    request: Option<u32>,
    /// An earlier write of it was never answered, so a later refusal does not mean that it was not stored.
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
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self { limits, lanes: BTreeMap::new(), writable: VecDeque::new(), messages: 0, bytes: 0, in_flight: 0 }
    }

    /// Takes a message, or tells why not.
    pub(crate) fn add(&mut self, link: &mut Link, id: CommandId, message: NewMessage) {
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
        lane.entries.push_back(Entry { id, message, client_message_id, dseq: 0, request: None, doubtful: false });
        self.enqueue(&log);
        self.write(link);
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

    /// Writes what the window allows, one message of each lane in turn.
    pub(crate) fn write(&mut self, link: &mut Link) {
        while link.ready && self.in_flight < SENDS_IN_FLIGHT_MAX {
            let Some(log) = self.writable.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&log) else { continue };
            lane.queued = false;
            if lane.write_next(link) {
                self.in_flight += 1;
                self.enqueue(&log);
            }
        }
    }

    /// An ACK. Returns where the message is, for its receipts.
    pub(crate) fn acked(
        &mut self,
        link: &mut Link,
        log: &LogName,
        request: u32,
        ack: &Ack,
    ) -> Option<(CommandId, u64)> {
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
        Some((entry.id, ack.position.seq))
    }

    /// A refusal: the message fails, or its lane waits and repeats.
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

    /// Writes the first message that is not written; false if there is none.
    fn write_next(&mut self, link: &mut Link) -> bool {
        if self.hold != Hold::Open {
            return false;
        }
        let Some(entry) = self.entries.get_mut(self.in_flight) else { return false };
        if entry.dseq == 0 {
            entry.dseq = self.next_dseq;
            self.next_dseq += 1;
            let client_message_id = *entry.client_message_id.get_or_insert_with(|| link.message_id());
            link.emit(Output::Send { id: entry.id, state: SendState::Sending { client_message_id } });
        }
        entry.write(link);
        self.in_flight += 1;
        true
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
        let Some(base) = self.entries.front().map(|entry| entry.dseq).filter(|dseq| *dseq > 0) else { return };
        self.next_dseq = base;
        for entry in self.entries.iter_mut().filter(|entry| entry.dseq > 0) {
            entry.dseq = self.next_dseq;
            self.next_dseq += 1;
        }
    }
}

impl Entry {
    fn write(&mut self, link: &mut Link) {
        let message = &self.message;
        let send = NewSend {
            client_message_id: self.client_message_id.unwrap_or_default(),
            dseq: self.dseq,
            kind: message.kind,
            content_type: message.content_type,
            log: &message.log,
            act_as: message.act_as.as_ref(),
            envelope: &message.envelope,
            body: &message.body,
        };
        self.request = Some(link.request(Pending::Send(message.log.clone()), |id| send.to_frame(id)));
    }
}

/// What a message counts for in the outbox.
fn weight(message: &NewMessage) -> usize {
    message.body.len() + message.envelope.len()
}
