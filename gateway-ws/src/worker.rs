//! One thread of the gateway: accepts connections, runs its sockets and its trunks on a runtime of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
};

use axum::{Router, routing::get, serve::ListenerExt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::{GatewayConfig, GatewayError, socket, trunk::Trunks};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// What the handlers of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) trunks: Trunks,
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
        if let Err(error) = runtime.block_on(serve(listener, config, client, stopped)) {
            tracing::error!(%error, "a worker of the gateway has ended");
        }
    };
    thread::Builder::new().name(name).spawn(run).map_err(GatewayError::Thread)
}

async fn serve(
    listener: TcpListener,
    config: GatewayConfig,
    client: quinn::ClientConfig,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    // A frame that is written alone must not wait for the client's delayed acknowledgement of the one before.
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|tcp| {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a connection that ends at once");
        }
    });
    let trunks = Trunks::start(&config.broker, config.trunks_per_worker.max(1), &client)?;
    let worker = Arc::new(Worker { trunks, origins: config.origins, stopped: stopped.clone() });
    let router = Router::new().route("/api/v1/socket", get(socket::upgrade)).with_state(worker);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            // A gateway that was dropped is stopped, too.
            let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
        })
        .await
}
