//! The way in: starts the driver's thread and makes handles.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use fred::{
    prelude::{Builder, Client, ReconnectPolicy},
    types::config::UnresponsiveConfig,
};
use thiserror::Error;
use tokio::sync::Notify;

use crate::{
    config::{ConfigError, RECONNECT_AFTER_MAX, RedisConfig},
    counters::Counters,
    driver::Driver,
    handle::{RedisHandle, Shared, Wake},
    keys::Keys,
};

/// News and signals that were received and not looked at. More: they are counted as missed, and everything is read again.
const RECEIVED_MAX: usize = 1 << 16;

/// Why the store cannot be started. A Redis that is away is no reason.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else of the client.
    #[error("the client of Redis: {0}")]
    Client(String),
    /// No thread, or no runtime on it.
    #[error("the thread of the presence store: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the outside and the driver share.
#[derive(Default)]
pub(crate) struct Door {
    pub(crate) notify: Arc<Notify>,
    pub(crate) arrivals: Mutex<Vec<Arc<Shared>>>,
    pub(crate) is_closed: AtomicBool,
    pub(crate) counters: Arc<Counters>,
}

/// This process's part of the presence that several processes share.
pub struct RedisPresence {
    door: Arc<Door>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").field("counters", &self.door.counters).finish_non_exhaustive()
    }
}

impl RedisPresence {
    /// Starts the thread. Handles may be made at once, also while Redis is away.
    pub fn start(config: &RedisConfig) -> Result<Self, StartError> {
        let client = client(config)?;
        let door = Arc::new(Door::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (keys, timing, shared) = (Keys::new(config.namespace.clone()), config.timing, door.clone());
        let thread = std::thread::Builder::new().name("presence".into()).spawn(move || {
            runtime.block_on(async { Driver::new(client, keys, timing, shared).run().await });
            // What is under way is of no use to anybody any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { door, thread: Some(thread) })
    }

    /// A handle, for one shard. `wake` is called on the driver's thread when it has events.
    pub fn handle(&self, wake: Arc<dyn Fn() + Send + Sync>) -> RedisHandle {
        let shared = Shared::new(wake as Wake, self.door.notify.clone());
        self.door.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        self.door.notify.notify_one();
        RedisHandle::new(shared)
    }

    /// What it did so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.door.counters.clone()
    }
}

impl Drop for RedisPresence {
    fn drop(&mut self) {
        self.door.is_closed.store(true, Ordering::Relaxed);
        self.door.notify.notify_one();
        // A panic of the thread was printed by it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn client(config: &RedisConfig) -> Result<Client, StartError> {
    let timing = config.timing;
    let max_delay_ms = RECONNECT_AFTER_MAX.as_millis() as u32;
    let mut builder = Builder::from_config(config.to_client()?);
    builder.set_policy(ReconnectPolicy::new_exponential(0, 20, max_delay_ms, 2));
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = timing.command_timeout;
        performance.broadcast_channel_capacity = RECEIVED_MAX;
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = timing.command_timeout;
        connection.internal_command_timeout = timing.command_timeout;
        // Whoever asked asks again; a command that is sent twice by itself would be one too many.
        connection.max_command_attempts = 1;
        connection.reconnect_on_auth_error = true;
        connection.unresponsive =
            UnresponsiveConfig { max_timeout: Some(timing.stale_after), interval: timing.command_timeout };
    });
    builder.build().map_err(|error| StartError::Client(error.to_string()))
}
