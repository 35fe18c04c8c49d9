//! Connections between browsers or back ends and the gateway. TCP delivers in order whatever the network does, so nothing
//! can overtake anything here; lag is backpressure once the bytes under way fill the queue, and a cut resets connections.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    time::{Duration, sleep, sleep_until},
};

use super::delay::{Harm, Jitter};

/// Connections at a time; further ones are reset.
const CONNECTIONS_MAX: usize = 512;
/// Chunks under way in one direction of a connection; when it is full the sender waits.
const UNDER_WAY: usize = 64;
/// Bytes of a chunk.
const CHUNK: usize = 16 << 10;
/// Before the next try when the process has no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The streams of chance begin here; those below are for datagrams.
const STREAMS: u64 = 1 << 32;

/// Forwards between `public` and the gateway; does not end.
pub(super) async fn relay(public: TcpListener, gateway: SocketAddr, harm: Harm, is_cut: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stream = STREAMS;
    loop {
        let Ok((near, _)) = public.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let (Ok(place), false) = (place, *is_cut.borrow()) else {
            reset(&near);
            continue;
        };
        let (up, down) = (harm.jitter(stream), harm.jitter(stream + 1));
        stream += 2;
        let is_cut = is_cut.clone();
        tokio::spawn(async move {
            // Which side ended it, and how, is nobody's business here: both see the end.
            let _ = carry(near, gateway, up, down, is_cut).await;
            drop(place);
        });
    }
}

async fn carry(
    mut near: TcpStream,
    gateway: SocketAddr,
    up: Jitter,
    down: Jitter,
    mut is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut far = TcpStream::connect(gateway).await?;
    // The bytes shall be late only by the lag.
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let both = async {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        tokio::try_join!(pipe(near_read, far_write, up), pipe(far_read, near_write, down)).map(drop)
    };
    tokio::select! {
        ended = both => return ended,
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
    }
    reset(&near);
    reset(&far);
    Ok(())
}

/// Closes without a goodbye when the stream is dropped. Without it the peer sees an ordinary end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// One direction, to its end.
async fn pipe(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut jitter: Jitter) -> io::Result<()> {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            if from.read_buf(&mut chunk).await? == 0 {
                return Ok(());
            }
            let due = jitter.due(Instant::now());
            if sender.send((due, chunk.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due.into()).await;
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}
