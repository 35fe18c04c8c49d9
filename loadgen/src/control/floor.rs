//! What the kernel alone takes for a fan-out: as many datagrams of the same size, by the same `sendmmsg`, to as many
//! sockets as the generator has, without QUIC, encryption or acknowledgements; and a sync of each message before, if it is to
//! be kept.

use std::{
    error::Error,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{fanout::SESSIONS_PER_SOCKET, loopback::Traffic, machine::pin};
use antiphon_sys::{
    cpu::thread_time,
    group::{GroupOptions, SocketGroup},
    poller::{Source, wait},
    udp::{Receiver, SendBatch, ShardSocket, Transmit},
};

use super::{bare::Load, sync::SyncFile};

/// What QUIC and encryption add to a frame: short header with an 8-byte connection id, packet number, stream header, tag.
const QUIC_BYTES: usize = 40;

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// CPU time of the sender per datagram, in microseconds.
    pub cpu_us_per_delivery: f64,
    /// Bytes and packets over loopback per datagram, if the kernel says so.
    pub wire_per_delivery: Option<[f64; 2]>,
}

/// Runs the load.
pub fn measure(load: Load) -> Result<Figures, Box<dyn Error>> {
    let sockets = load.receivers().div_ceil(SESSIONS_PER_SOCKET);
    let receivers: Result<Vec<UdpSocket>, _> = (0..sockets).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let receivers = receivers?;
    let addresses: Result<Vec<SocketAddr>, _> = receivers.iter().map(UdpSocket::local_addr).collect();
    let addresses = addresses?;
    let is_over = Arc::new(AtomicBool::new(false));
    let threads = receivers.into_iter().map(|socket| drain(socket, load.core, is_over.clone())).collect::<Vec<_>>();
    let sent = send(load, &addresses);
    is_over.store(true, Ordering::Release);
    for thread in threads {
        thread.join().map_err(|_| "a receiver panicked")??;
    }
    let ((cpu, wire), deliveries) = (sent?, load.seconds * load.rate * load.members as f64);
    Ok(Figures {
        cpu_us_per_delivery: cpu.as_secs_f64() * 1e6 / deliveries,
        wire_per_delivery: wire.map(|wire| wire.per(deliveries)),
    })
}

/// Takes in what comes until the sender is done.
fn drain(
    socket: UdpSocket,
    core: Option<usize>,
    is_over: Arc<AtomicBool>,
) -> thread::JoinHandle<Result<(), std::io::Error>> {
    thread::spawn(move || {
        if let Some(core) = core {
            pin(core)?;
        }
        socket.set_nonblocking(true)?;
        let socket = ShardSocket::new(socket)?;
        let mut receiver = Receiver::default();
        while !is_over.load(Ordering::Acquire) {
            wait([Source::readable(&socket)], Some(Duration::from_millis(20)))?;
            while receiver.receive(&socket, 64, |_| {})? == 64 {}
        }
        Ok(())
    })
}

fn send(load: Load, addresses: &[SocketAddr]) -> Result<(Duration, Option<Traffic>), Box<dyn Error>> {
    let group = SocketGroup::bind(([127, 0, 0, 1], 0).into(), 1, GroupOptions::default())?;
    let socket = group.socket(0)?;
    let addresses = addresses.to_vec();
    let sender = thread::Builder::new().name("floor".into()).spawn(move || -> std::io::Result<_> {
        if let Some(core) = load.server_core {
            pin(core)?;
        }
        let packet = vec![0; load.bytes + antiphon_protocol::header::HEADER_BYTES + QUIC_BYTES];
        let mut batch = SendBatch::default();
        let mut file = load.synced.then(SyncFile::make).transpose()?;
        let (interval, mut due) = (Duration::from_secs_f64(1.0 / load.rate), Instant::now());
        let (wire, before) = (Traffic::read().ok(), thread_time());
        for round in 0..(load.seconds * load.rate) as usize {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += interval;
            if let Some(file) = &mut file {
                file.append(&packet)?;
            }
            let first = round % load.rooms * load.members;
            for member in first..first + load.members {
                let destination = addresses[member % addresses.len()];
                let transmit = Transmit { destination, src_ip: None, ecn: None, segment_size: None };
                while batch.push(transmit, &packet).is_err() {
                    batch.flush(&socket)?;
                }
            }
            batch.flush(&socket)?;
        }
        let cpu = thread_time().saturating_sub(before);
        Ok((cpu, Traffic::between(wire, Traffic::read().ok())))
    })?;
    Ok(sender.join().map_err(|_| "the sender panicked")??)
}
