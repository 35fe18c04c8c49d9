//! One thread of the gateway: accepts connections, runs its sockets and its trunks on a runtime of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{sync::watch, time};

use crate::{
    Development, GatewayConfig, GatewayError,
    http::{self, Pool, Tickets},
    metrics::Counters,
    trunk::Trunks,
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// How often numbers are published and idle sessions behind HTTP requests are ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the handlers of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) trunks: Trunks,
    pub(crate) counters: Arc<Counters>,
    /// Sessions behind HTTP requests.
    pub(crate) pool: Pool,
    pub(crate) tickets: Tickets,
    pub(crate) development: Option<Development>,
    pub(crate) origins: Vec<String>,
    pub(crate) stopped: watch::Receiver<bool>,
}

/// One listener for each worker at one address; the kernel spreads connections over them.
pub(crate) fn bind(listen: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, GatewayError> {
    let failed = |source| GatewayError::Listen { listen, source };
    let first = bind_one(listen, false).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    while listeners.len() < workers {
        listeners.push(bind_one(bound, true).map_err(failed)?);
    }
    Ok(listeners)
}

fn bind_one(listen: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    // A broker that is started again at once finds its port although old connections linger there.
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&listen.into())?;
    // Only after the bind: the first one fails if somebody else has the address.
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(crate) fn start(
    index: usize,
    listener: TcpListener,
    config: &GatewayConfig,
    client: quinn::ClientConfig,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, GatewayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(GatewayError::Thread)?;
    let (config, name) = (config.clone(), format!("gateway-{index}"));
    let run = move || {
        if let Err(error) = runtime.block_on(serve(index, listener, config, client, stopped)) {
            tracing::error!(%error, "a worker of the gateway has ended");
        }
    };
    thread::Builder::new().name(name).spawn(run).map_err(GatewayError::Thread)
}

async fn look_after(worker: Arc<Worker>, index: usize) {
    let (mut interval, index) = (time::interval(LOOK_INTERVAL), index.to_string());
    loop {
        interval.tick().await;
        worker.pool.sweep();
        worker.counters.trunks.set(worker.trunks.connected() as u64);
        worker.counters.http_sessions.set(worker.pool.len() as u64);
        worker.counters.publish(&index);
    }
}

async fn serve(
    index: usize,
    listener: TcpListener,
    config: GatewayConfig,
    client: quinn::ClientConfig,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let counters = Arc::new(Counters::default());
    let trunks = Trunks::start(&config.broker, config.trunks_per_worker.max(1), &client, &counters)?;
    let no_key = || io::Error::other("the edge's key makes no key for tickets");
    let worker = Arc::new(Worker {
        trunks,
        counters,
        pool: Pool::default(),
        tickets: Tickets::new(&config.broker.key_pem).ok_or_else(no_key)?,
        development: config.development,
        origins: config.origins,
        stopped: stopped.clone(),
    });
    tokio::spawn(look_after(Arc::clone(&worker), index));
    let service = http::router(worker).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            // A gateway that was dropped is stopped, too.
            let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
        })
        .await
}
