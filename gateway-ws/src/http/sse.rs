//! Server-sent events: one stream is one log, from any position, for as long as its reader takes what comes.
//!
//! What is missing is read in pages until a subscription can begin with the rest inside; a reader that falls behind goes
//! back to pages. So nothing waits here but one page.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use antiphon_edge::{Outbox, Overflow};
use antiphon_protocol::{
    Class, DecodeError, ErrorCode, FrameType, Position, RawFrame, Row, VERSION,
    control::{self, Attach, Fetch, Hello, Subscribe, attach::Reset, subscribe::From},
    frames::{self, Page},
    limits::COUNTER_MAX,
};
use axum::{
    extract::{ConnectInfo, Path, RawQuery, State, rejection::PathRejection},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::{
    sync::{Notify, mpsc},
    time,
};

use super::{answer, call, session::refusal};
use crate::{
    json,
    reader::{Delivered, Reader},
    shown::Shown,
    trunk::{Channel, Trunks},
    worker::Worker,
};

/// How long a stream waits for a trunk, and the first answer.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Events between the session and the response.
const EVENTS_MAX: usize = 16;
/// A comment goes out when nothing else did for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// `GET /api/v1/logs/{log}/stream`
pub(super) async fn stream(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let log = match path {
        Ok(Path(log)) => log,
        Err(rejection) => return answer::rejected(rejection.status(), "path", &rejection.body_text()),
    };
    let query = call::parse_query(query.as_deref().unwrap_or_default());
    let asked = match read_request(&worker, &log, &query, &headers) {
        Ok(asked) => asked,
        Err(error) => return answer::failed(&error),
    };
    let mut follower = match Follower::begin(&worker.trunks, remote, log, asked).await {
        Ok(follower) => follower,
        Err(error) => return answer::failed(&error),
    };
    let (sender, receiver) = mpsc::channel::<Event>(EVENTS_MAX);
    let mut stopped = worker.stopped.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = follower.run(&sender) => {}
            () = sender.closed() => {}
            _ = stopped.changed() => {}
        }
    });
    let events = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// With what rights, and after which position; `None` = what comes from now on.
struct Asked {
    token: String,
    after: Option<Position>,
}

fn read_request(
    worker: &Worker,
    log: &str,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Asked, control::Error> {
    let of = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let Some((name, _)) = query.iter().find(|(name, _)| !matches!(name.as_str(), "after" | "ticket")) {
        return Err(refusal(ErrorCode::UnknownFields, name, "is not a parameter of this request"));
    }
    let token = match of("ticket") {
        Some(ticket) => {
            let (allowed, token) = worker.tickets.open(ticket)?;
            if allowed != log {
                return Err(refusal(ErrorCode::Forbidden, "ticket", "the ticket is for another log"));
            }
            token
        }
        None => call::bearer(headers)?.to_owned(),
    };
    // The header is of a reader that comes back, so it is newer than what the page was loaded with.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = match last.or_else(|| of("after")) {
        Some(text) => Some(parse_position(text)?),
        None => None,
    };
    Ok(Asked { token, after })
}

fn parse_position(text: &str) -> Result<Position, control::Error> {
    let parts = text.split_once('-').and_then(|(epoch, seq)| Some((digits(epoch)?, digits(seq)?)));
    match parts.map(|(epoch, seq)| (u32::try_from(epoch), seq)) {
        Some((Ok(epoch), seq)) if seq <= COUNTER_MAX => Ok(Position { epoch, seq }),
        _ => Err(refusal(ErrorCode::InvalidField, "after", "expected a position, such as 1-42")),
    }
}

/// A number as the JSON form writes it: without a sign, and without zeros before it.
fn digits(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// The session of one stream.
struct Follower {
    shared: Arc<Shared>,
    channel: Channel,
    log: String,
    epoch: u32,
    /// The next position to show; 0 = whatever comes.
    next: u64,
    last_id: u32,
}

/// Why a stream ends.
enum End {
    /// The response is not read any more.
    Unread,
    /// The session is over.
    Over(control::Error),
}

impl Follower {
    async fn begin(trunks: &Trunks, remote: SocketAddr, log: String, asked: Asked) -> Result<Self, control::Error> {
        let shared = Arc::new(Shared::default());
        let opened = time::timeout(START_TIMEOUT, trunks.open(Arc::<Shared>::clone(&shared), remote)).await;
        let channel = opened.map_err(|_| refusal(ErrorCode::NotActive, "", "no broker answers"))?;
        let (epoch, next) = asked.after.map_or((0, 0), |after| (after.epoch, after.seq + 1));
        let mut follower = Self { shared, channel, log, epoch, next, last_id: 0 };
        let hello = Hello {
            versions: vec![VERSION],
            token: asked.token,
            client: concat!("antiphon-sse/", env!("CARGO_PKG_VERSION")).to_owned(),
            background: true,
            ..Hello::default()
        };
        follower.ask(FrameType::Hello, |id| frames::control(FrameType::Hello, id, &hello)).await?;
        // The first subscription tells whether the log may be read at all, while the status can still say so.
        follower.subscribe().await?;
        Ok(follower)
    }

    async fn run(&mut self, sender: &mpsc::Sender<Event>) {
        let end = loop {
            match self.follow(sender).await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if let End::Over(error) = end {
            let error = answer::error_object(&error);
            let _ = sender.send(Event::default().event("end").data(String::from_utf8_lossy(&error))).await;
        }
    }

    /// From a subscription that was asked for to its end. Then another one is asked for.
    async fn follow(&mut self, sender: &mpsc::Sender<Event>) -> Result<(), End> {
        loop {
            let frame = self.shared.next().await.map_err(End::Over)?;
            match frame.frame_type {
                FrameType::Attach => {
                    let attach: Attach = frames::decode_answer(&frame.body).map_err(unreadable)?;
                    self.attached(&attach, sender).await?;
                }
                FrameType::Event => {
                    let row = Row::new(frame.body.clone())
                        .map_err(|_| unreadable(DecodeError::Malformed { field: "row" }))?;
                    self.show(&row, sender).await?;
                }
                FrameType::Behind => {
                    self.catch_up(sender).await?;
                    self.subscribe().await.map_err(End::Over)?;
                }
                FrameType::Detach => {
                    let message = "the reader was removed, or the conversation was deleted";
                    return Err(End::Over(refusal(ErrorCode::Removed, "", message)));
                }
                _ => {}
            }
        }
    }

    async fn attached(&mut self, attach: &Attach, sender: &mpsc::Sender<Event>) -> Result<(), End> {
        if attach.reset() != Reset::None {
            let reason = attach.reset().as_str_name().to_lowercase();
            let data = serde_json::json!({ "reason": reason, "floor": attach.floor }).to_string();
            send(sender, Event::default().event("reset").data(data)).await?;
        }
        self.epoch = attach.epoch;
        self.next = attach.replay_from;
        if !attach.inlined && attach.replay_from < attach.live_from {
            // What comes live meanwhile is dropped as already shown, or leaves a gap that ends the subscription.
            self.catch_up(sender).await?;
        }
        Ok(())
    }

    /// Reads pages up to the head.
    async fn catch_up(&mut self, sender: &mpsc::Sender<Event>) -> Result<(), End> {
        loop {
            let fetch = Fetch { log: self.log.clone(), from: self.next, ..Fetch::default() };
            let answer = self.ask(FrameType::Fetch, |id| frames::control(FrameType::Fetch, id, &fetch)).await;
            let answer = answer.map_err(End::Over)?;
            let page = Page::decode(&answer.body).map_err(unreadable)?;
            for row in &page.rows {
                self.show(row, sender).await?;
            }
            if page.next == 0 {
                return Ok(());
            }
            self.next = page.next;
        }
    }

    async fn show(&mut self, row: &Row, sender: &mpsc::Sender<Event>) -> Result<(), End> {
        if row.seq() < self.next {
            return Ok(());
        }
        let mut line = BytesMut::new();
        let event = RawFrame { frame_type: FrameType::Event, id: 0, body: row.bytes().clone() };
        json::encode(&event, None, &mut line)
            .map_err(|error| End::Over(refusal(ErrorCode::Internal, "", &error.to_string())))?;
        let line = line.strip_prefix(b"{\"op\":\"EVENT\",\"handle\":0,").unwrap_or(&line);
        let data = format!("{{{}", String::from_utf8_lossy(line));
        let id = format!("{}-{}", self.epoch, row.seq());
        self.next = row.seq() + 1;
        send(sender, Event::default().id(id).data(data)).await
    }

    async fn subscribe(&mut self) -> Result<(), control::Error> {
        let from = match self.next {
            0 => From::Tail(true),
            next => From::After(control::Position { epoch: self.epoch, seq: next - 1 }),
        };
        let subscribe = Subscribe { log: self.log.clone(), from: Some(from) };
        self.ask(FrameType::Subscribe, |id| frames::control(FrameType::Subscribe, id, &subscribe)).await.map(drop)
    }

    /// Asks, and waits for the answer. An ATTACH stays in its place among the events.
    async fn ask(&mut self, kind: FrameType, frame: impl FnOnce(u32) -> Bytes) -> Result<RawFrame, control::Error> {
        self.last_id += 1;
        let id = self.last_id;
        let lost = || refusal(ErrorCode::NotActive, "", "the way to the broker was lost");
        self.channel.send(&frame(id)).await.map_err(|_| lost())?;
        time::timeout(START_TIMEOUT, self.shared.answer(id, kind)).await.map_err(|_| lost())?
    }
}

async fn send(sender: &mpsc::Sender<Event>, event: Event) -> Result<(), End> {
    sender.send(event).await.map_err(|_| End::Unread)
}

fn unreadable(error: DecodeError) -> End {
    End::Over(refusal(ErrorCode::Internal, "", &error.to_string()))
}

/// What the trunk sees of a stream.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Outbox,
    /// Answers that nobody took yet; there is one request at a time.
    answers: Vec<RawFrame>,
    attached: Vec<u32>,
    over: Option<control::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is left half done where a thread could panic in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, error: control::Error) {
        self.lock().over.get_or_insert(error);
        self.changed.notify_one();
    }

    /// The next frame of the events.
    async fn next(&self) -> Result<RawFrame, control::Error> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if let Some(bytes) = state.events.take(b"", 0) {
                    let frame_type = bytes.get(4).and_then(|number| FrameType::from_number(*number));
                    let id = bytes.get(8..12).and_then(|id| id.first_chunk()).map_or(0, |id| u32::from_le_bytes(*id));
                    if let Some(frame_type) = frame_type {
                        return Ok(RawFrame { frame_type, id, body: bytes.slice(12..) });
                    }
                    continue;
                }
                if let Some(over) = &state.over {
                    return Err(over.clone());
                }
            }
            changed.await;
        }
    }

    async fn answer(&self, id: u32, kind: FrameType) -> Result<RawFrame, control::Error> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if kind == FrameType::Subscribe && state.attached.contains(&id) {
                    state.attached.clear();
                    return Ok(RawFrame { frame_type: FrameType::Attach, id, body: Bytes::new() });
                }
                if let Some(at) = state.answers.iter().position(|answer| answer.id == id) {
                    let answer = state.answers.swap_remove(at);
                    if answer.frame_type != FrameType::Error {
                        return Ok(answer);
                    }
                    let error = frames::decode_answer(&answer.body);
                    return Err(error.unwrap_or_else(|error| refusal(ErrorCode::Internal, "", &error.to_string())));
                }
                if let Some(over) = &state.over {
                    return Err(over.clone());
                }
            }
            changed.await;
        }
    }
}

impl Reader for Shared {
    fn deliver(&self, class: Class, shown: &mut Shown<'_>) -> Result<Delivered, Overflow> {
        let Some(frame) = shown.raw() else { return Ok(Delivered::Done) };
        let result = match (frame.frame_type, frame.id) {
            (FrameType::Error, 0) => {
                let farewell = frames::decode_answer(&frame.body);
                self.end(farewell.unwrap_or_else(|_| refusal(ErrorCode::Closed, "", "the session has ended")));
                return Ok(Delivered::Done);
            }
            (FrameType::Event, _) => self.lock().events.push_event(shown.binary()),
            (FrameType::Attach, id) => {
                let mut state = self.lock();
                state.attached.push(id);
                state.events.push(Class::Events, shown.binary());
                Ok(())
            }
            _ if class == Class::Events => {
                self.lock().events.push(Class::Events, shown.binary());
                Ok(())
            }
            _ if shown.is_answer() => {
                self.lock().answers.push(frame);
                Ok(())
            }
            _ => return Ok(Delivered::Done),
        };
        self.changed.notify_one();
        result.map(|()| Delivered::Done)
    }

    fn ended(&self, code: Option<ErrorCode>) {
        self.end(refusal(code.unwrap_or(ErrorCode::Closed), "", "the session has ended"));
    }

    fn lost(&self) {
        self.end(refusal(ErrorCode::NotActive, "", "the way to the broker was lost"));
    }
}
