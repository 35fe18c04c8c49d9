//! The session behind HTTP requests: one for all requests with the same token, in the background.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use antiphon_edge::Overflow;
use antiphon_protocol::{
    Class, ErrorCode, FrameType, RawFrame, VERSION,
    control::{self, Hello, error::Outcome},
    frames,
    limits::REQUESTS_IN_FLIGHT_MAX,
};
use bytes::Bytes;
use tokio::{sync::oneshot, time};

use crate::{
    reader::{Delivered, Reader},
    shown::Shown,
    trunk::{Channel, Trunks},
};

/// How long a request may take; then its outcome is not known.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request waits for a trunk.
const TRUNK_TIMEOUT: Duration = Duration::from_secs(5);

/// A session with its channel. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    channel: Channel,
    /// One question for a presence at a time: the list of those who are watched is the session's.
    watching: tokio::sync::Mutex<()>,
}

/// What the trunk sees of it.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    over: Option<control::Error>,
    waiting: BTreeMap<u32, oneshot::Sender<RawFrame>>,
    presence: Option<oneshot::Sender<RawFrame>>,
    last_id: u32,
}

impl Session {
    /// Begins a session for a token.
    pub(super) async fn begin(trunks: &Trunks, remote: SocketAddr, token: &str) -> Result<Self, control::Error> {
        let shared = Arc::new(Shared::default());
        let opened = time::timeout(TRUNK_TIMEOUT, trunks.open(Arc::<Shared>::clone(&shared), remote)).await;
        let channel = opened.map_err(|_| refusal(ErrorCode::NotActive, "", "no broker answers"))?;
        let session = Self { shared, channel, watching: tokio::sync::Mutex::new(()) };
        let hello = Hello {
            versions: vec![VERSION],
            token: token.to_owned(),
            client: concat!("antiphon-http/", env!("CARGO_PKG_VERSION")).to_owned(),
            background: true,
            ..Hello::default()
        };
        let (id, answer) = session.reserve()?;
        session.send(&frames::control(FrameType::Hello, id, &hello)).await?;
        session.answer(answer).await?;
        Ok(session)
    }

    /// An id for a request, and where its answer comes.
    pub(super) fn reserve(&self) -> Result<(u32, oneshot::Receiver<RawFrame>), control::Error> {
        let mut state = self.shared.lock();
        if let Some(over) = &state.over {
            return Err(over.clone());
        }
        if state.waiting.len() >= REQUESTS_IN_FLIGHT_MAX {
            return Err(refusal(ErrorCode::RateLimited, "", "too many requests with this token wait"));
        }
        state.last_id = state.last_id.checked_add(1).unwrap_or(1);
        let (id, (sender, receiver)) = (state.last_id, oneshot::channel());
        state.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    /// Sends a request.
    pub(super) async fn send(&self, frame: &Bytes) -> Result<(), control::Error> {
        self.channel.send(frame).await.map_err(|_| lost())
    }

    /// Waits for an answer.
    pub(super) async fn answer(&self, answer: oneshot::Receiver<RawFrame>) -> Result<RawFrame, control::Error> {
        let frame = match time::timeout(TIMEOUT, answer).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(self.shared.lock().over.clone().unwrap_or_else(lost)),
            Err(_) => return Err(lost()),
        };
        if frame.frame_type != FrameType::Error {
            return Ok(frame);
        }
        match frames::decode_answer(&frame.body) {
            Ok(error) => Err(error),
            Err(error) => Err(refusal(ErrorCode::Internal, "", &error.to_string())),
        }
    }

    /// How a user is now.
    pub(super) async fn presence(&self, user: &str) -> Result<control::Presence, control::Error> {
        let _one_at_a_time = self.watching.lock().await;
        let (sender, receiver) = oneshot::channel();
        self.shared.lock().presence = Some(sender);
        let (id, answer) = self.reserve()?;
        let watch = control::PresenceSubscribe { users: vec![user.to_owned()] };
        self.send(&frames::control(FrameType::PresenceSubscribe, id, &watch)).await?;
        self.answer(answer).await?;
        let told = self.answer(receiver).await?;
        frames::decode_answer(&told.body).map_err(|error| refusal(ErrorCode::Internal, "", &error.to_string()))
    }

    pub(super) fn is_over(&self) -> bool {
        self.shared.lock().over.is_some()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where a thread could panic in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait learn of it by the end of their channel.
    fn end(&self, error: control::Error) {
        let mut state = self.lock();
        state.over.get_or_insert(error);
        state.waiting.clear();
        state.presence = None;
    }
}

impl Reader for Shared {
    fn deliver(&self, _class: Class, shown: &mut Shown<'_>) -> Result<Delivered, Overflow> {
        let Some(frame) = shown.raw() else { return Ok(Delivered::Done) };
        let mut state = self.lock();
        if frame.frame_type == FrameType::Error && frame.id == 0 {
            drop(state);
            let farewell = frames::decode_answer(&frame.body).unwrap_or_else(|_| lost());
            self.end(farewell);
        } else if shown.is_answer()
            && let Some(waiting) = state.waiting.remove(&frame.id)
        {
            // Whoever asked may have gone.
            let _ = waiting.send(frame);
        } else if frame.frame_type == FrameType::Presence
            && let Some(waiting) = state.presence.take()
        {
            let _ = waiting.send(frame);
        }
        Ok(Delivered::Done)
    }

    fn ended(&self, code: Option<ErrorCode>) {
        self.end(refusal(code.unwrap_or(ErrorCode::Closed), "", "the session has ended"));
    }

    fn lost(&self) {
        self.end(lost());
    }
}

/// The way to the broker was lost while something was asked.
fn lost() -> control::Error {
    let error = refusal(ErrorCode::StoreUnavailable, "", "the way to the broker was lost before it answered");
    control::Error { outcome: Outcome::Unknown.into(), ..error }
}

/// A refusal of the gateway's own.
pub(super) fn refusal(code: ErrorCode, field: &str, message: &str) -> control::Error {
    control::Error {
        number: code as u32,
        code: code.code().to_owned(),
        outcome: Outcome::NotApplied.into(),
        field: field.to_owned(),
        message: message.to_owned(),
        ..control::Error::default()
    }
}
