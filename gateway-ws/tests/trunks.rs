//! Who may open a trunk, against a real broker: an edge whose certificate is known, by the application protocol of trunks.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use antiphon_protocol::{ALPN, FrameType, TRUNK_ALPN, control::ChannelOpen, frames, trunk::Prefix};
use antiphon_server::{
    Broker,
    config::{Config, Overrides},
};
use quinn::{ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};

/// What a client shows.
enum Shows {
    Nothing,
    Own(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

fn start(data: &Path, clients: &[String]) -> Broker {
    let any = || Some("127.0.0.1:0".to_owned());
    let flags = Overrides {
        listen: any(),
        admin_listen: any(),
        data_dir: Some(data.to_owned()),
        shards: Some(2),
        ..Overrides::default()
    };
    let mut config = Config::load(None, [], flags, 2).expect("a configuration");
    config.trunk.clients = clients.to_vec();
    Broker::start(config).expect("a broker")
}

fn own_edge(broker: &Broker) -> Shows {
    let edge = broker.edge();
    let chain = CertificateDer::pem_slice_iter(edge.certificate_pem.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    Shows::Own(chain, PrivateKeyDer::from_pem_slice(&edge.key_pem).expect("PEM"))
}

fn stranger() -> (Shows, String) {
    let made = rcgen::generate_simple_self_signed(vec!["edge".into()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    (Shows::Own(vec![certificate], key), hex)
}

/// Connects, and opens a channel: a server may refuse a certificate after the client thinks that it is connected.
async fn open(data: &Path, address: SocketAddr, alpn: &[u8], shows: Shows) -> Result<(), ConnectionError> {
    let pem = std::fs::read(data.join("secrets/certificate.pem")).expect("the broker's certificate");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut tls = match shows {
        Shows::Nothing => builder.with_no_client_auth(),
        Shows::Own(chain, key) => builder.with_client_auth_cert(chain, key).expect("a pair"),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let connection = endpoint.connect_with(config, address, "localhost").expect("a name").await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let open = frames::control(FrameType::ChannelOpen, 0, &ChannelOpen { remote: "192.0.2.1:5000".into() });
    // A frame that is no HELLO: the broker answers with the reason and ends the channel.
    let hello = frames::raw(FrameType::Bye, 1, &[]);
    let prefix = Prefix::channel(1).encode();
    let _ = send.write_all(&[&prefix[..], &open, &prefix, &hello].concat()).await;
    let mut answer = [0; 20];
    match receive.read_exact(&mut answer).await {
        Ok(()) => {
            assert_eq!((answer[0], answer[12]), (1, FrameType::Error as u8), "the channel's farewell");
            Ok(())
        }
        Err(_) => Err(connection.closed().await),
    }
}

#[tokio::test]
async fn only_edges_with_a_known_certificate_open_trunks() {
    let data = tempfile::tempdir().expect("a folder");
    let (known, fingerprint) = stranger();
    let broker = start(data.path(), &[fingerprint]);
    let (data, trunks) = (data.path(), broker.trunk_address());
    open(data, trunks, TRUNK_ALPN, own_edge(&broker)).await.expect("the broker's own edge");
    open(data, trunks, TRUNK_ALPN, known).await.expect("an edge of the configuration");

    let (unknown, _) = stranger();
    assert!(open(data, trunks, TRUNK_ALPN, unknown).await.is_err(), "an unknown certificate");
    assert!(open(data, trunks, TRUNK_ALPN, Shows::Nothing).await.is_err(), "no certificate");
    assert!(open(data, trunks, ALPN, own_edge(&broker)).await.is_err(), "a client's protocol on the trunk listener");
    assert!(
        open(data, broker.address(), TRUNK_ALPN, own_edge(&broker)).await.is_err(),
        "a trunk on the clients' listener"
    );
    broker.stop(Duration::ZERO).expect("a good end");
}

#[tokio::test]
async fn an_edge_that_is_taken_off_the_list_opens_no_trunk_after_the_next_start() {
    let data = tempfile::tempdir().expect("a folder");
    let (edge, fingerprint) = stranger();
    start(data.path(), &[fingerprint]).stop(Duration::ZERO).expect("a good end");
    let broker = start(data.path(), &[]);
    assert!(open(data.path(), broker.trunk_address(), TRUNK_ALPN, edge).await.is_err());
    broker.stop(Duration::ZERO).expect("a good end");
}
