//! Datagrams between clients and the broker: a task and a socket towards the broker for each client address.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::pending,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::sleep_until,
};

use super::delay::{DelayLine, Harm};

/// Client addresses at a time; datagrams of further ones are dropped until one has gone.
const FLOWS_MAX: usize = 512;
/// Datagrams between the public socket and the task of a client, which takes them at once; the newest is dropped.
const INBOX: usize = 256;
/// A client address that is silent so long is forgotten. It may come back, for the broker then from another port.
const IDLE: Duration = Duration::from_secs(60);
/// The longest datagram.
const DATAGRAM_MAX: usize = 65_536;

/// Forwards between `public` and the broker; does not end.
pub(super) async fn relay(public: UdpSocket, broker: SocketAddr, harm: Harm, is_cut: watch::Receiver<bool>) {
    let public = Arc::new(public);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut opened = 0;
    loop {
        // An error tells of a client that has gone, which is no reason to stop.
        let Ok((length, client)) = public.recv_from(&mut buffer).await else { continue };
        if flows.len() >= FLOWS_MAX && !flows.contains_key(&client) {
            flows.retain(|_, inbox| !inbox.is_closed());
            if flows.len() >= FLOWS_MAX {
                continue;
            }
        }
        let mut open = || {
            opened += 1;
            Flow::open(client, Arc::clone(&public), broker, &harm, opened, is_cut.clone())
        };
        let inbox = match flows.entry(client) {
            Entry::Occupied(mut entry) if entry.get().is_closed() => {
                entry.insert(open());
                entry.into_mut()
            }
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(open()),
        };
        // Full or just ended: the network has lost a datagram.
        let _ = inbox.try_send(Bytes::copy_from_slice(&buffer[..length]));
    }
}

/// What is under way between one client address and the broker.
struct Flow {
    client: SocketAddr,
    public: Arc<UdpSocket>,
    inbox: mpsc::Receiver<Bytes>,
    is_cut: watch::Receiver<bool>,
    up: DelayLine,
    down: DelayLine,
}

impl Flow {
    fn open(
        client: SocketAddr,
        public: Arc<UdpSocket>,
        broker: SocketAddr,
        harm: &Harm,
        number: u64,
        is_cut: watch::Receiver<bool>,
    ) -> mpsc::Sender<Bytes> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (up, down) = (harm.line(2 * number), harm.line(2 * number + 1));
        let flow = Self { client, public, inbox, is_cut, up, down };
        tokio::spawn(async move {
            if let Err(error) = flow.carry(broker).await {
                tracing::warn!(%client, %error, "--chaos: no socket for a client");
            }
        });
        sender
    }

    /// Until the client has been silent for long, or the relay ends.
    async fn carry(mut self, broker: SocketAddr) -> io::Result<()> {
        let own = SocketAddr::new(broker.ip(), 0);
        let far = UdpSocket::bind(own).await?;
        far.connect(broker).await?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut last = Instant::now();
        loop {
            let due = [self.up.next_due(), self.down.next_due()].into_iter().flatten().min();
            let wait = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                datagram = self.inbox.recv() => {
                    let Some(datagram) = datagram else { return Ok(()) };
                    last = Instant::now();
                    if !*self.is_cut.borrow() {
                        self.up.push(last, datagram);
                    }
                }
                // A broker that is away shows as an error, once for each datagram that went there.
                received = far.recv(&mut buffer) => if let Ok(length) = received && !*self.is_cut.borrow() {
                    self.down.push(Instant::now(), Bytes::copy_from_slice(&buffer[..length]));
                },
                () = wait => {}
                () = sleep_until((last + IDLE).into()) => return Ok(()),
            }
            self.send_due(&far).await;
        }
    }

    async fn send_due(&mut self, far: &UdpSocket) {
        if *self.is_cut.borrow() {
            self.up.clear();
            self.down.clear();
        }
        let now = Instant::now();
        // What cannot be sent is lost, as on any network.
        while let Some(datagram) = self.up.pop(now) {
            let _ = far.send(&datagram).await;
        }
        while let Some(datagram) = self.down.pop(now) {
            let _ = self.public.send_to(&datagram, self.client).await;
        }
    }
}
