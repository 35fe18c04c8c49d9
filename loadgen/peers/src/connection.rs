//! A client's connection to a peer.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::BytesMut;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    certificate::HOST,
    codec::{Codec, CodecError, Consumer, Incoming, Keep},
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

/// A connection that was greeted.
#[derive(Debug)]
pub struct Connection {
    codec: Codec,
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    out: BytesMut,
}

impl Connection {
    /// Connects and waits for the greeting. Numbers of connections to one server differ.
    pub async fn open(
        peer: Peer,
        address: SocketAddr,
        client: &Arc<ClientConfig>,
        number: u64,
    ) -> Result<Self, ConnectionError> {
        let socket = TcpSocket::new_v4()?;
        let host = 1 + (number / CONNECTIONS_PER_ADDRESS) as u8;
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
        let codec = Codec::new(peer, number);
        let mut connection = Self { codec, stream, input: BytesMut::new(), out: BytesMut::new() };
        connection.codec.greet(&mut connection.out);
        connection.ask(&Incoming::Greeted).await?;
        Ok(connection)
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
            other => Err(CodecError::Unexpected(format!("{other:?}")).into()),
        }
    }

    /// Writes a message to who is there into the buffer, which [`Self::flush`] sends.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.codec.publish(subject, payload, &mut self.out);
    }

    /// Writes a message that is to be kept into the buffer, which [`Self::flush`] sends.
    pub fn keep(&mut self, message: Keep<'_>) -> Result<(), ConnectionError> {
        Ok(self.codec.keep(message, &mut self.out)?)
    }

    /// The same for a message that goes to its followers once it is kept.
    pub fn keep_and_publish(&mut self, message: Keep<'_>) -> Result<(), ConnectionError> {
        Ok(self.codec.keep_and_publish(message, &mut self.out)?)
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
            other => Err(CodecError::Unexpected(format!("{other:?}")).into()),
        }
    }
}
