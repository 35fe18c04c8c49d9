//! The handle that applications hold.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use antiphon_protocol::LogName;
use antiphon_sdk_core::{
    ConnectionState, Digest, From, Messages, NewMessage, NewSignal, Page, Range, Receipt, RequestError, SendError,
    StopReason,
};
use bytes::Bytes;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::{
    Carrier, Config, Endpoint, Error, Presences, Result, Subscription,
    call::Call,
    driver::{Driver, News},
    queued::{Fate, Queued},
};

/// Calls that wait for the driver; a further one waits for room.
const CALLS_MAX: usize = 256;
/// Digests that a slow receiver may lag behind; the oldest are dropped.
const DIGESTS_MAX: usize = 256;

/// A client of one broker, as one user on one device. Cloning shares it; when the last clone and the last
/// [`Subscription`] are gone, the session ends.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) attention: Arc<Attention>,
    state: watch::Receiver<ConnectionState>,
    carrier: watch::Receiver<Option<Carrier>>,
    digests: broadcast::Receiver<Digest>,
    pub(crate) presences: watch::Receiver<Presences>,
    endpoint: Endpoint,
    subscription_queue: usize,
}

/// How subscriptions reach the driver without waiting.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    pub(crate) notify: Notify,
    /// Set by the driver while something waits for room in a full queue.
    pub(crate) waits_for_room: AtomicBool,
    /// Set when a subscription was dropped.
    pub(crate) dropped: AtomicBool,
}

impl Attention {
    pub(crate) fn subscription_read(&self) {
        if self.waits_for_room.load(Ordering::Acquire) {
            self.notify.notify_one();
        }
    }

    pub(crate) fn subscription_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

impl Client {
    /// Connects, and waits for the first session, at most [`Config::connect_timeout`]. Must be called within a Tokio
    /// runtime.
    pub async fn connect(config: Config) -> Result<Self> {
        let timeout = config.connect_timeout;
        let client = Self::start(config)?;
        // The last attempt may still be under way then; what ended the one before it tells more than silence.
        let mut cause = None;
        match tokio::time::timeout(timeout, client.ready_or(|said| cause = Some(said.to_owned()))).await {
            Ok(ready) => ready.map(|()| client),
            Err(_) => {
                client.close().await;
                Err(Error::Unreachable { cause: cause.unwrap_or_else(|| "the broker has not answered".into()) })
            }
        }
    }

    /// Starts without waiting for a connection: sends and subscriptions wait until there is one.
    pub fn start(config: Config) -> Result<Self> {
        let endpoint = match &config.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => Endpoint::for_remote(config.address)?,
        };
        let (calls, calls_rx) = mpsc::channel(CALLS_MAX);
        let (state_tx, state) = watch::channel(ConnectionState::Connecting);
        let (carrier_tx, carrier) = watch::channel(None);
        let (digests_tx, digests) = broadcast::channel(DIGESTS_MAX);
        let (presences_tx, presences) = watch::channel(Presences::new());
        let attention = Arc::new(Attention::default());
        let subscription_queue = config.subscription_queue.max(1);
        let news = News { state: state_tx, carrier: carrier_tx, digests: digests_tx, presences: presences_tx };
        let driver = Driver::new(config, &endpoint, calls_rx, attention.clone(), news)?;
        tokio::spawn(driver.run());
        let shared = Shared { calls, attention, state, carrier, digests, presences, endpoint, subscription_queue };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits until a session stands.
    pub async fn ready(&self) -> Result<()> {
        self.ready_or(|_| {}).await
    }

    /// The same; `failed` hears what ended each attempt.
    async fn ready_or(&self, mut failed: impl FnMut(&str)) -> Result<()> {
        let mut state = self.shared.state.clone();
        let decided = |state: &ConnectionState| {
            if let ConnectionState::Waiting { cause } = state {
                failed(cause);
            }
            matches!(state, ConnectionState::Ready(_) | ConnectionState::Stopped(_))
        };
        match state.wait_for(decided).await.as_deref() {
            Ok(ConnectionState::Stopped(reason)) => Err(Error::Stopped(reason.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Stopped(StopReason::Closed)),
        }
    }

    /// How the client stands with the broker now.
    pub fn state(&self) -> ConnectionState {
        self.shared.state.borrow().clone()
    }

    /// Follows [`state`](Self::state).
    pub fn connection_state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.clone()
    }

    /// What carries the newest connection, [`Carrier::Quic`] or [`Carrier::WebSocket`]; `None` before the first one.
    pub fn carrier(&self) -> watch::Receiver<Option<Carrier>> {
        self.shared.carrier.clone()
    }

    /// News of the user's conversations, subscribed or not; needs [`Config::follow_mine`].
    pub fn digests(&self) -> broadcast::Receiver<Digest> {
        self.shared.digests.resubscribe()
    }

    /// Asks the token provider for a token now, and takes it for the running session: for when the user's rights have
    /// changed. Before a token ends, and when one was refused, this happens by itself. Does not wait for the broker; a
    /// token that it refuses changes nothing.
    pub async fn renew_token(&self) -> Result<()> {
        self.call(Call::RenewToken).await
    }

    /// Ends the session. Everything that waits fails.
    pub async fn close(&self) {
        let mut state = self.shared.state.clone();
        if self.shared.calls.send(Call::Close).await.is_ok() {
            // An error means that the driver has ended, which is what is waited for.
            let _ = state.wait_for(|state| matches!(state, ConnectionState::Stopped(_))).await;
        }
    }

    pub(crate) async fn call(&self, call: Call) -> Result<()> {
        self.shared.calls.send(call).await.map_err(|_| Error::Stopped(self.stop_reason()))
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        match self.state() {
            ConnectionState::Stopped(reason) => reason,
            _ => StopReason::Closed,
        }
    }
}

/// Messages.
impl Client {
    /// Sends text, and waits until it is durable.
    ///
    /// Waits as long as it takes: the message stays in the outbox across reconnects, even when the future is dropped.
    pub async fn send(&self, log: &LogName, text: impl Into<String>) -> Result<Receipt> {
        self.send_message(NewMessage::text(log.clone(), text)).await
    }

    /// Sends any message, and waits until it is durable.
    pub async fn send_message(&self, message: NewMessage) -> Result<Receipt> {
        let (reply, answer) = oneshot::channel();
        self.call(Call::Send { message, reply }).await?;
        let sent = answer.await.map_err(|_| SendError::Stopped(self.stop_reason()))?;
        Ok(sent?)
    }

    /// Sends messages in their order, written together, and waits until each is durable or has failed.
    ///
    /// Not atomic: the results are those of the messages, in the same order. Waits as [`send`](Self::send) does.
    pub async fn send_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Result<Receipt>>> {
        let (messages, answers): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .map(|message| {
                let (reply, answer) = oneshot::channel();
                ((message, reply), answer)
            })
            .unzip();
        self.call(Call::SendBatch { messages }).await?;
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            let sent = answer.await.map_err(|_| SendError::Stopped(self.stop_reason()));
            results.push(sent.and_then(|sent| sent).map_err(Error::from));
        }
        Ok(results)
    }

    /// Puts a message into the outbox. Its fate can be followed, or waited for: as far as [`SendState::Read`] while its
    /// log is subscribed.
    ///
    /// [`SendState::Read`]: crate::SendState::Read
    pub async fn send_queued(&self, message: NewMessage) -> Result<Queued> {
        let (follower, fate) = watch::channel(Fate::default());
        self.call(Call::SendQueued { message, follower }).await?;
        Ok(Queued::new(fate, self.clone()))
    }
}

/// Logs.
impl Client {
    /// Follows a log, and waits until the subscription has taken hold. A log can be subscribed once per client.
    pub async fn subscribe(&self, log: &LogName, from: From) -> Result<Subscription> {
        let (items_tx, items) = mpsc::channel(self.shared.subscription_queue);
        let (reply, answer) = oneshot::channel();
        self.call(Call::Subscribe { log: log.clone(), from, items: items_tx, reply }).await?;
        match answer.await {
            Ok(Ok(attached)) => Ok(Subscription::new(log.clone(), attached, items, self.shared.clone())),
            Ok(Err(reason)) => Err(Error::Subscribe(reason)),
            Err(_) => Err(Error::Stopped(self.stop_reason())),
        }
    }

    /// Reads a page of history.
    pub async fn history(&self, range: Range) -> Result<Page> {
        let (reply, answer) = oneshot::channel();
        self.call(Call::Fetch { range, reply }).await?;
        Ok(answer.await.map_err(|_| RequestError::Stopped(self.stop_reason()))??)
    }

    /// Reads messages as they stand: edited, redacted, reacted to. Later events apply on top, by [`Messages::apply`].
    pub async fn messages(&self, range: Range) -> Result<Messages> {
        let (reply, answer) = oneshot::channel();
        self.call(Call::Messages { range, reply }).await?;
        Ok(answer.await.map_err(|_| RequestError::Stopped(self.stop_reason()))??)
    }

    /// Moves one's own cursors of a log; 0 leaves one where it is. Merged and sent at most once a second.
    pub async fn cursor(&self, log: &LogName, delivered: u64, read: u64) -> Result<()> {
        self.call(Call::Cursor { log: log.clone(), delivered, read }).await
    }

    /// Sends an ephemeral signal, as "typing", to those who follow the log now. It counts for `ttl_ms` milliseconds (0 =
    /// 6 seconds) and has at most 1 KiB of data.
    ///
    /// Does not wait for the broker, which neither stores signals nor answers them: one that is not allowed, or that
    /// finds a slow network, is lost. When the network is slow the newest 64 are kept. Without a session it fails with
    /// [`RequestError::NotConnected`].
    pub async fn signal(&self, log: &LogName, kind: &str, data: Bytes, ttl_ms: u32) -> Result<()> {
        let signal = NewSignal { log: log.clone(), kind: kind.into(), data, ttl_ms };
        let (reply, answer) = oneshot::channel();
        self.call(Call::Signal { signal, reply }).await?;
        Ok(answer.await.map_err(|_| RequestError::Stopped(self.stop_reason()))??)
    }
}

/// The network below.
impl Client {
    /// The UDP socket.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Moves the UDP socket to another port, as a phone does between networks; see [`Endpoint::rebind`].
    pub fn rebind(&self) -> Result<()> {
        self.shared.endpoint.rebind()
    }

    /// Cuts the connection without a word to the session, as a lost network does; the client then reconnects.
    #[cfg(feature = "test-hooks")]
    pub async fn kill_connection(&self) -> Result<()> {
        self.call(Call::Kill).await
    }
}
