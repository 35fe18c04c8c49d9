//! A client's connection to a peer.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::{
    certificate::HOST,
    codec::{Codec, CodecError, Consumer, Entry, Incoming, Keep, Newest, Position},
    program::Peer,
};

/// Room for what one read brings.
const READ_BYTES: usize = 16 << 10;
/// Connections from one address of the loopback network; each address has some 28,000 ports.
const CONNECTIONS_PER_ADDRESS: u64 = 10_000;

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// It cannot be made, or broke.
    #[error("the connection to the peer failed")]
    Io(#[from] io::Error),
    /// It said something unexpected.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// With TLS or without.
type Stream = Either<Box<TlsStream<TcpStream>>, TcpStream>;

/// A connection that was greeted.
#[derive(Debug)]
pub struct Connection {
    codec: Codec,
    stream: Stream,
    input: BytesMut,
    out: BytesMut,
}

impl Connection {
    /// Connects, without TLS if there is no `client`, and waits for the greeting. Numbers of connections to one server differ.
    pub async fn open(
        peer: Peer,
        address: SocketAddr,
        client: Option<&Arc<ClientConfig>>,
        number: u64,
    ) -> Result<Self, ConnectionError> {
        Self::greet(Codec::new(peer, number)?, address, client, number).await.map(|(connection, _)| connection)
    }

    /// The same of a client that comes back; also says whether the server has kept its subscriptions.
    pub async fn open_lasting(
        peer: Peer,
        address: SocketAddr,
        client: Option<&Arc<ClientConfig>>,
        number: u64,
    ) -> Result<(Self, bool), ConnectionError> {
        Self::greet(Codec::lasting(peer, number)?, address, client, number).await
    }

    async fn greet(
        codec: Codec,
        address: SocketAddr,
        client: Option<&Arc<ClientConfig>>,
        number: u64,
    ) -> Result<(Self, bool), ConnectionError> {
        let socket = TcpSocket::new_v4()?;
        let host = 1 + (number / CONNECTIONS_PER_ADDRESS) as u8;
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = match client {
            Some(client) => {
                let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
                Either::Left(Box::new(TlsConnector::from(Arc::clone(client)).connect(name, stream).await?))
            }
            None => Either::Right(stream),
        };
        let mut connection = Self { codec, stream, input: BytesMut::new(), out: BytesMut::new() };
        connection.codec.greet(&mut connection.out);
        connection.flush().await?;
        match connection.next().await? {
            Incoming::Greeted => Ok((connection, false)),
            Incoming::Resumed => Ok((connection, true)),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether it goes on with a TLS session of an earlier connection.
    pub fn has_resumed_tls(&self) -> bool {
        match &self.stream {
            Either::Left(tls) => tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed),
            Either::Right(_) => false,
        }
    }

    /// Subscribes and waits until that holds.
    pub async fn subscribe(&mut self, subject: &str) -> Result<(), ConnectionError> {
        self.subscribe_all(&[subject.to_owned()]).await
    }

    /// The same for some subjects, in one go.
    pub async fn subscribe_all(&mut self, subjects: &[String]) -> Result<(), ConnectionError> {
        for _ in 0..self.codec.subscribe(subjects, &mut self.out) {
            self.ask(&Incoming::Subscribed).await?;
        }
        Ok(())
    }

    /// Follows what is kept of a subject and waits until that holds.
    pub async fn follow_kept(&mut self, subject: &str) -> Result<(), ConnectionError> {
        let consumer = self.codec.follow_kept(subject, &mut self.out)?;
        self.ask(&Incoming::Subscribed).await?;
        match consumer {
            Consumer::Made => self.ask(&Incoming::Done).await,
            Consumer::None => Ok(()),
        }
    }

    /// Makes what messages are kept in.
    pub async fn make_stream(&mut self, subjects: &str) -> Result<(), ConnectionError> {
        self.codec.make_stream(subjects, &mut self.out)?;
        self.flush().await?;
        self.next().await.map(drop)
    }

    /// How many messages of a subject are kept; over all subjects where one stream has all of them.
    pub async fn count(&mut self, subject: &str) -> Result<u64, ConnectionError> {
        self.codec.count(subject, &mut self.out)?;
        self.flush().await?;
        match self.next().await? {
            Incoming::Counted(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    /// What was kept after these positions of some streams, stream after stream.
    pub async fn read_after(&mut self, streams: &[(String, Position)]) -> Result<Vec<Entry>, ConnectionError> {
        self.codec.read_after(streams, false, &mut self.out)?;
        self.flush().await?;
        self.entries().await
    }

    /// Asks to be told, once, of what comes after these positions; [`Self::next`] has it then.
    pub async fn wait_after(&mut self, streams: &[(String, Position)]) -> Result<(), ConnectionError> {
        self.codec.read_after(streams, true, &mut self.out)?;
        self.flush().await
    }

    /// The newest `count` of the `kept` messages of a subject, the newest first.
    pub async fn newest(&mut self, subject: &str, kept: u64, count: usize) -> Result<Vec<Bytes>, ConnectionError> {
        let newest = self.codec.newest(subject, kept, count, &mut self.out)?;
        self.flush().await?;
        match newest {
            Newest::Entries => Ok(self.entries().await?.into_iter().map(|entry| entry.payload).collect()),
            Newest::Messages => {
                let (mut messages, mut is_made) = (Vec::with_capacity(count), false);
                while messages.len() < count || !is_made {
                    match self.next().await? {
                        Incoming::Message(payload) => messages.push(payload),
                        Incoming::Done if !is_made => is_made = true,
                        other => return Err(unexpected(&other)),
                    }
                }
                self.codec.end_replay(&mut self.out);
                self.ask(&Incoming::Done).await?;
                messages.reverse();
                Ok(messages)
            }
        }
    }

    async fn entries(&mut self) -> Result<Vec<Entry>, ConnectionError> {
        match self.next().await? {
            Incoming::Entries(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes a message to who is there into the buffer, which [`Self::flush`] sends.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.codec.publish(subject, payload, &mut self.out);
    }

    /// Writes a message that is to be kept into the buffer, which [`Self::flush`] sends.
    pub fn keep(&mut self, message: Keep<'_>) {
        self.codec.keep(message, &mut self.out);
    }

    /// The same for a message that goes to its followers once it is kept.
    pub fn keep_and_publish(&mut self, message: Keep<'_>) {
        self.codec.keep_and_publish(message, &mut self.out);
    }

    /// Sends what is in the buffer.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.stream.write_all_buf(&mut self.out).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next thing that the server says.
    pub async fn next(&mut self) -> Result<Incoming, ConnectionError> {
        loop {
            if let Some(incoming) = self.next_buffered().await? {
                return Ok(incoming);
            }
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The next thing that the server has said already.
    pub async fn next_buffered(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        let incoming = self.codec.decode(&mut self.input, &mut self.out)?;
        if incoming.is_none() && !self.out.is_empty() {
            // Something that is to be answered at once.
            self.flush().await?;
        }
        Ok(incoming)
    }

    async fn ask(&mut self, expected: &Incoming) -> Result<(), ConnectionError> {
        self.flush().await?;
        match self.next().await? {
            found if found == *expected => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(incoming: &Incoming) -> ConnectionError {
    CodecError::Unexpected(format!("{incoming:?}")).into()
}

#[cfg(test)]
mod tests {
    use rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    use tokio::{
        io::{AsyncRead, AsyncWrite},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::certificate::Certificate;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    /// Greets as Redis does.
    async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut asked = vec![0; PING.len()];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, PING);
        stream.write_all(b"+PONG\r\n").await.unwrap();
        stream.flush().await.unwrap();
    }

    fn acceptor(certificate: &Certificate) -> TlsAcceptor {
        let chain = CertificateDer::from_pem_file(certificate.chain()).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate.key()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(server))
    }

    #[tokio::test]
    async fn connections_are_greeted_with_tls_and_without() {
        let certificate = Certificate::make().unwrap();
        let (client, acceptor) = (certificate.client().unwrap(), acceptor(&certificate));
        for client in [Some(&client), None] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                match client {
                    Some(_) => greet(acceptor.accept(stream).await.unwrap()).await,
                    None => greet(stream).await,
                }
            };
            let (connection, ()) = tokio::join!(Connection::open(Peer::Redis, address, client, 0), server);
            connection.unwrap();
        }
    }
}
