//! Networks between clients, gateways and brokers: a UDP relay that can be cut, a TCP relay that counts and may speak TLS.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use antiphon_sdk::Trust;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One UDP peer's way to a server.
pub(crate) struct UdpRelay {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl UdpRelay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let (near, far) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (address, is_cut) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let cut = Arc::clone(&is_cut);
        let task = tokio::spawn(async move {
            let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
            let mut peer = None;
            loop {
                // A server that is away shows as an error, which is no reason to stop.
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut up) => {
                        peer = Some(from);
                        if !cut.load(Ordering::Acquire) {
                            let _ = far.send_to(&up[..length], to).await;
                        }
                    }
                    Ok((length, _)) = far.recv_from(&mut down) => {
                        if let Some(peer) = peer.filter(|_| !cut.load(Ordering::Acquire)) {
                            let _ = near.send_to(&down[..length], peer).await;
                        }
                    }
                    else => {}
                }
            }
        });
        Self { address, is_cut, task }
    }

    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Release);
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A TCP port in front of another one.
pub(crate) struct TcpRelay {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TcpRelay {
    pub(crate) async fn start(to: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::AcqRel);
                let tls = tls.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await?;
                    match tls {
                        Some(tls) => copy_bidirectional(&mut tls.accept(near).await?, &mut far).await,
                        None => copy_bidirectional(&mut near, &mut far).await,
                    }
                });
            }
        });
        Self { address, accepted, task }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for `localhost`: who shows it, and two ways to trust it.
pub(crate) fn certificate() -> (TlsAcceptor, Trust, Trust) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let pin = Trust::Fingerprint(digest.as_ref().try_into().unwrap());
    (TlsAcceptor::from(Arc::new(tls)), pin, Trust::Roots(vec![certificate.to_vec()]))
}
