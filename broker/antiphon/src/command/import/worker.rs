//! One worker of an import: gathers the events of its conversations into IMPORTs and keeps where they ended up.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antiphon_protocol::{
    EventKind, EventRef, FrameType, LogName, control,
    frames::{decode_answer, imported_id},
    limits::{BATCH_RECORDS_MAX, FRAME_BYTES_MAX},
};
use antiphon_sdk::{Action, Answer, Client, ConversationId, ConversationKind, Error, NewConversation, RequestError};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::line::{ConversationLine, CursorLine, EventLine, Line, LineError};
use crate::failure::Failure;

/// Events of a worker that are not sent yet, over all its conversations.
const GATHERED_MAX: usize = 2_000;
/// Bytes of one IMPORT; it leaves room for one record of the largest size.
const IMPORT_BYTES: usize = FRAME_BYTES_MAX / 2;
/// Members that are added at once.
const MEMBERS_AT_ONCE: usize = 256;
/// Refused lines that are shown; the others are counted.
const SHOWN_MAX: u64 = 50;
/// Between two attempts after a refusal for now, or while the broker is away.
const RETRY: Duration = Duration::from_millis(200);

/// A line that is to be imported, and its number in the file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) line: Line,
}

/// What came of the lines.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    pub(super) conversations: u64,
    pub(super) new: u64,
    pub(super) there: u64,
    pub(super) cursors: u64,
    pub(super) refused: u64,
}

/// The totals of all workers.
#[derive(Debug, Default)]
pub(super) struct Report(Mutex<Totals>);

impl Report {
    pub(super) fn totals(&self) -> Totals {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A line is not imported.
    pub(super) fn refuse(&self, number: u64, why: &dyn fmt::Display) {
        self.count(|totals| totals.refused += 1);
        match self.totals().refused {
            ..=SHOWN_MAX => eprintln!("line {number}: {why}"),
            refused if refused == SHOWN_MAX + 1 => eprintln!("further lines are counted only"),
            _ => {}
        }
    }
}

/// An event that waits in an IMPORT.
#[derive(Debug)]
struct Gathered {
    number: u64,
    id: Uuid,
    is_message: bool,
}

/// A conversation of the worker.
#[derive(Debug)]
struct Target {
    log: LogName,
    /// Where its messages ended up, by the ids made of their names.
    places: HashMap<Uuid, EventRef>,
    gathered: Vec<Gathered>,
    body: BytesMut,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    client: Arc<Client>,
    report: Arc<Report>,
    targets: HashMap<String, Target>,
    gathered: usize,
}

impl Worker {
    pub(super) fn new(client: Arc<Client>, report: Arc<Report>) -> Self {
        Self { client, report, targets: HashMap::new(), gathered: 0 }
    }

    /// Works until there are no more lines.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<(), Failure> {
        while let Some(Job { number, line }) = jobs.recv().await {
            match line {
                Line::Conversation(line) => self.conversation(number, line).await?,
                Line::Event(line) => self.event(number, &line).await?,
                Line::Cursor(line) => self.cursor(number, &line).await?,
            }
            if self.gathered >= GATHERED_MAX {
                self.send_all().await?;
            }
        }
        self.send_all().await
    }

    /// Creates the conversation, or finds it and adds who is missing.
    async fn conversation(&mut self, number: u64, line: ConversationLine) -> Result<(), Failure> {
        let ConversationLine { id, kind, title, owner, members, history, retention_s } = line;
        let own_id = match (kind, id.parse::<ConversationId>()) {
            (ConversationKind::Direct, _) => None,
            (_, Ok(id)) => Some(id),
            (_, Err(error)) => {
                self.report.refuse(number, &LineError::member("id", error.to_string()));
                return Ok(());
            }
        };
        let (first, more) = members.split_at(members.len().min(MEMBERS_AT_ONCE - 1));
        let new = NewConversation {
            id: own_id,
            kind,
            title,
            members: first.to_vec(),
            act_as: Some(owner.clone()),
            history,
            retention_s,
            ..Default::default()
        };
        let created = match until_answered(|| self.client.create_conversation(new.clone())).await? {
            Ok(created) => created,
            Err(refused) => {
                self.report.refuse(number, &refused);
                return Ok(());
            }
        };
        let is_direct = kind == ConversationKind::Direct;
        let missing = if created.created || is_direct { more } else { &members[..] };
        for some in missing.chunks(MEMBERS_AT_ONCE) {
            let add = || self.client.add_members_for(&created.id, some.to_vec(), &owner);
            if let Err(refused) = until_answered(add).await? {
                self.report.refuse(number, &refused);
            }
        }
        self.target(&id, LogName::Conversation(created.id));
        self.report.count(|totals| totals.conversations += 1);
        Ok(())
    }

    fn target(&mut self, conversation: &str, log: LogName) -> &mut Target {
        self.targets.entry(conversation.to_owned()).or_insert_with(|| Target {
            log,
            places: HashMap::new(),
            gathered: Vec::new(),
            body: BytesMut::new(),
        })
    }

    /// The conversation of a line, which may have been there before the import.
    fn existing(&mut self, number: u64, conversation: &str) -> Option<&mut Target> {
        if !self.targets.contains_key(conversation) {
            match conversation.parse::<ConversationId>() {
                Ok(id) => drop(self.target(conversation, LogName::Conversation(id))),
                Err(error) => {
                    self.report.refuse(number, &LineError::member("conversation", error.to_string()));
                    return None;
                }
            }
        }
        self.targets.get_mut(conversation)
    }

    async fn event(&mut self, number: u64, line: &EventLine) -> Result<(), Failure> {
        let Some(target) = self.existing(number, &line.conversation) else { return Ok(()) };
        let is_gathered = |id: Uuid| target.gathered.iter().any(|event| event.id == id);
        if line.refers.iter().any(|(_, id)| is_gathered(imported_id(id))) {
            self.send(&line.conversation).await?;
        }
        let Some(target) = self.targets.get(&line.conversation) else { return Ok(()) };
        let place = |id: &str| target.places.get(&imported_id(id)).copied();
        let record = match line.record(&target.log, place) {
            Ok(record) => record,
            Err(error) => {
                self.report.refuse(number, &error);
                return Ok(());
            }
        };
        if target.gathered.len() == BATCH_RECORDS_MAX || target.body.len() + record.len() > IMPORT_BYTES {
            self.send(&line.conversation).await?;
        }
        let Some(target) = self.targets.get_mut(&line.conversation) else { return Ok(()) };
        target.body.extend_from_slice(&record);
        target.gathered.push(Gathered { number, id: line.id, is_message: line.kind == EventKind::MESSAGE });
        self.gathered += 1;
        Ok(())
    }

    async fn cursor(&mut self, number: u64, line: &CursorLine) -> Result<(), Failure> {
        self.send(&line.conversation).await?;
        let Some(target) = self.existing(number, &line.conversation) else { return Ok(()) };
        let mut cursor =
            control::Cursor { log: target.log.to_string(), act_as: line.user.clone(), ..Default::default() };
        let reached = [("read", &line.read, &mut cursor.read), ("delivered", &line.delivered, &mut cursor.delivered)];
        let mut unknown = None;
        for (field, id, seq) in reached {
            let Some(id) = id else { continue };
            match target.places.get(&imported_id(id)) {
                Some(place) => *seq = place.seq,
                None => unknown = Some(LineError::member(field, format!("no message {id:?} comes before this line"))),
            }
        }
        if let Some(error) = unknown {
            self.report.refuse(number, &error);
            return Ok(());
        }
        match self.ask(FrameType::Cursor, cursor.encode_to_vec().into()).await? {
            Ok(_) => self.report.count(|totals| totals.cursors += 1),
            Err(refused) => self.report.refuse(number, &refused),
        }
        Ok(())
    }

    async fn send_all(&mut self) -> Result<(), Failure> {
        let waiting: Vec<String> =
            self.targets.iter().filter(|(_, target)| !target.gathered.is_empty()).map(|(id, _)| id.clone()).collect();
        for conversation in waiting {
            self.send(&conversation).await?;
        }
        Ok(())
    }

    /// Sends what was gathered for a conversation, until every record has its outcome.
    async fn send(&mut self, conversation: &str) -> Result<(), Failure> {
        let Some(target) = self.targets.get_mut(conversation) else { return Ok(()) };
        let (gathered, body) = (std::mem::take(&mut target.gathered), std::mem::take(&mut target.body).freeze());
        if gathered.is_empty() {
            return Ok(());
        }
        self.gathered -= gathered.len();
        loop {
            match self.ask(FrameType::Import, body.clone()).await? {
                Err(refused) => {
                    gathered.iter().for_each(|event| self.report.refuse(event.number, &refused));
                    return Ok(());
                }
                Ok(answer) => {
                    let batch: control::BatchAck =
                        decode_answer(&answer.body).map_err(|_| Error::from(RequestError::Answer))?;
                    let is_for_now = |result: &control::BatchResult| {
                        result.error.as_ref().is_some_and(|error| error.number / 1_000 == 1)
                    };
                    if batch.results.len() == gathered.len() && !batch.results.iter().any(is_for_now) {
                        self.settle(conversation, &gathered, &batch.results);
                        return Ok(());
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn settle(&mut self, conversation: &str, gathered: &[Gathered], results: &[control::BatchResult]) {
        let Some(target) = self.targets.get_mut(conversation) else { return };
        for (event, result) in gathered.iter().zip(results) {
            let Some(position) = &result.position else {
                let refusal = result.error.clone().unwrap_or_default();
                self.report.refuse(event.number, &antiphon_sdk::Refusal::from(refusal));
                continue;
            };
            if event.is_message
                && let Ok(event_id) = Uuid::from_slice(&result.event_id)
            {
                target.places.insert(event.id, EventRef { seq: position.seq, event_id });
            }
            self.report.count(|totals| if result.duplicate { totals.there += 1 } else { totals.new += 1 });
        }
    }

    async fn ask(&self, frame_type: FrameType, body: Bytes) -> Result<Result<Answer, RequestError>, Failure> {
        until_answered(|| self.client.request(frame_type, body.clone())).await
    }
}

/// Asks until there is an answer: what is asked here may be repeated, and the broker may be away for a while.
async fn until_answered<T, F>(ask: impl Fn() -> F) -> Result<Result<T, RequestError>, Failure>
where
    F: Future<Output = antiphon_sdk::Result<T>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Ok(Ok(answer)),
            Err(error) if is_for_now(&error) => tokio::time::sleep(RETRY).await,
            Err(Error::Request(refused @ RequestError::Refused(_))) => return Ok(Err(refused)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_for_now(error: &Error) -> bool {
    match error {
        Error::Request(RequestError::ConnectionLost | RequestError::QueueFull(_)) => true,
        Error::Request(RequestError::Refused(refusal)) => refusal.action() == Action::Retry,
        _ => false,
    }
}
