//! One thread of the gateway: accepts connections, runs its sockets and its trunks on a runtime of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time,
};
use tower::ServiceExt;

use crate::{
    Development, GatewayConfig, GatewayError,
    http::{self, Pool, Tickets},
    metrics::Counters,
    trunk::Trunks,
};

/// Connections of one worker, WebSockets included. Full: nobody is accepted until one ends.
const CONNECTIONS_MAX: usize = 100_000;
/// How long a client may take for the header of a request, from the end of the one before.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's header, and of what is read ahead. More is refused.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Bytes that the kernel holds for a client that does not read; it doubles them for its own bookkeeping. Left to itself it
/// takes megabytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections may take to end when the gateway stops.
const GOODBYE: Duration = Duration::from_secs(3);
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
    // Connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
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
    let router = http::router(worker);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // A full worker accepts nobody; the kernel's queue and then the client wait.
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A gateway that was dropped is stopped, too.
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, remote)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_connection(stream, remote, router).await;
                    drop(slot);
                });
            }
            // Out of descriptors, or a connection that is gone again: both pass.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Sockets say goodbye by themselves; whatever is left ends with the runtime.
    let _ = time::timeout(GOODBYE, slots.acquire_many(CONNECTIONS_MAX as u32)).await;
    Ok(())
}

async fn serve_connection(stream: TcpStream, remote: SocketAddr, router: Router) {
    // Chat is small messages: each goes out at once.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: axum::http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(remote));
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES_MAX);
    let connection = connection.serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, %remote, "connection");
    }
}
