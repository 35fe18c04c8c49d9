//! One member: a session of its own that reads everything and sends what falls due.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_checker::{OpId, Outcome};
use antiphon_sdk::{
    Client, ConnectionState, ContentType, Error, LogName, NewMessage, Outcome as RefusalOutcome, Queued, SendError,
    Sent, Subscription,
};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    names::{MessageNumber, Seat, message_id},
    recorder::Recorder,
};

/// A message that falls due.
#[derive(Debug)]
pub struct Due {
    /// Its number within the run.
    pub number: MessageNumber,
    /// Its body.
    pub body: Bytes,
}

/// A connected member that follows its group's log.
#[derive(Debug)]
pub struct Member {
    /// Where it sits.
    pub seat: Seat,
    /// Its own session.
    pub client: Client,
    /// Its view of the group's log.
    pub events: Subscription,
    /// The group's log.
    pub log: LogName,
}

/// A send that waits for its acknowledgement.
struct Waiting {
    number: MessageNumber,
    op: OpId,
    queued: Queued,
}

impl Member {
    /// Sends what comes in on `due` and records all that happens, until `stop` says true. Returns the client, still
    /// connected.
    ///
    /// `due` is unbounded: the schedule, which is in memory, is its bound, and waiting would turn the open loop into a
    /// closed one.
    pub async fn run(
        mut self,
        mut due: mpsc::UnboundedReceiver<Due>,
        mut stop: watch::Receiver<bool>,
        recorder: Arc<Recorder>,
    ) -> Client {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let (mut reading, mut sending) = (true, true);
        let mut connection = self.client.connection_state();
        let mut was_ready = true;
        loop {
            tokio::select! {
                item = self.events.next(), if reading => {
                    reading = item.is_some_and(|item| recorder.received(self.seat, &item));
                }
                message = due.recv(), if sending => match message {
                    Some(message) => self.send(message, &mut waiting, &recorder).await,
                    None => sending = false,
                },
                outcome = oldest(&mut waiting), if !waiting.is_empty() => {
                    if let Some(sent) = waiting.pop_front() {
                        recorder.sent(self.seat, sent.number, sent.op, outcome);
                    }
                }
                Ok(()) = connection.changed() => {
                    let is_ready = matches!(*connection.borrow_and_update(), ConnectionState::Ready(_));
                    if was_ready && !is_ready {
                        recorder.disconnected();
                    }
                    was_ready = is_ready;
                }
                () = stopped(&mut stop) => return self.client,
            }
        }
    }

    /// Acknowledgements of one log come in the order of its sends, so waiting for the oldest is enough.
    async fn send(&self, due: Due, waiting: &mut VecDeque<Waiting>, recorder: &Recorder) {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let id = message_id(due.number, unix_ms);
        let mut message = NewMessage::new(self.log.clone(), ContentType::Text, due.body.clone());
        message.client_message_id = Some(id);
        let op = recorder.sending(self.seat, due.number, id, &due.body);
        match self.client.send_queued(message).await {
            Ok(queued) => waiting.push_back(Waiting { number: due.number, op, queued }),
            Err(error) => recorder.sent(self.seat, due.number, op, outcome(Err(error))),
        }
    }
}

/// Waits until `stop` says true, or nobody can say it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _the_sender_is_gone = stop.wait_for(|stop| *stop).await.is_err();
}

/// Cancel-safe: it only watches.
async fn oldest(waiting: &mut VecDeque<Waiting>) -> Outcome {
    match waiting.front_mut() {
        Some(oldest) => outcome(oldest.queued.sent().await),
        None => std::future::pending().await,
    }
}

fn outcome(result: Result<Sent, Error>) -> Outcome {
    match result {
        Ok(sent) => Outcome::Ok { seq: sent.position.seq },
        Err(Error::Send(SendError::Refused(refusal))) if refusal.outcome == RefusalOutcome::NotApplied => {
            Outcome::Refused
        }
        Err(Error::Send(SendError::QueueFull { .. } | SendError::TooLarge { .. } | SendError::Kind)) => {
            Outcome::Refused
        }
        Err(_) => Outcome::Unknown,
    }
}
