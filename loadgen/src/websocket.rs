//! A WebSocket client (RFC 6455) that costs next to nothing: benches measure servers, not clients.

use std::{io, net::SocketAddr};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// A connection on which text messages travel.
#[derive(Debug)]
pub struct WebSocket {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: BytesMut,
}

impl WebSocket {
    /// Connects and upgrades. Extensions are not offered.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or does not answer with 101.
    pub async fn connect(address: SocketAddr, path: &str, protocol: Option<&str>) -> io::Result<Self> {
        Self::upgrade(TcpStream::connect(address).await?, address, path, protocol).await
    }

    /// As [`Self::connect`], with a kernel that holds so few bytes that are not read, or not much more.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub async fn connect_narrow(
        address: SocketAddr,
        path: &str,
        protocol: Option<&str>,
        receive_bytes: u32,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_recv_buffer_size(receive_bytes)?;
        Self::upgrade(socket.connect(address).await?, address, path, protocol).await
    }

    async fn upgrade(
        mut stream: TcpStream,
        address: SocketAddr,
        path: &str,
        protocol: Option<&str>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let protocol = protocol.map_or_else(String::new, |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut unread = Vec::new();
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        if !unread.starts_with(b"HTTP/1.1 101") {
            return Err(io::Error::other(String::from_utf8_lossy(&unread[..end]).into_owned()));
        }
        unread.drain(..end);
        Ok(Self { stream, unread, unsent: BytesMut::new() })
    }

    /// Sends a text.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.queue(text)?;
        self.flush().await
    }

    /// Lets a text wait until something is sent, or the next one is asked for.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn queue(&mut self, text: &str) -> io::Result<()> {
        self.frame(TEXT, text.as_bytes())
    }

    /// The next text. A Ping is answered; other control frames are passed over. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((head, length)) = self.head()
                && self.unread.len() >= head + length
            {
                let kind = self.unread[0];
                let payload = self.unread[head..head + length].to_vec();
                self.unread.drain(..head + length);
                match kind {
                    TEXT => return Ok(payload),
                    PING => self.frame(PONG, &payload)?,
                    _ => {}
                }
                continue;
            }
            self.flush().await?;
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A client masks what it sends. The mask is zero, which keeps the bytes as they are.
    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(payload.len()).map_err(io::Error::other)?;
        self.unsent.put_u8(kind);
        match length {
            0..126 => self.unsent.put_u8(MASKED | length as u8),
            _ => {
                self.unsent.put_u8(MASKED | 126);
                self.unsent.put_u16(length);
            }
        }
        self.unsent.put_bytes(0, 4);
        self.unsent.put_slice(payload);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.unsent).await
    }

    /// Bytes of the next frame's header, and of its payload.
    fn head(&self) -> Option<(usize, usize)> {
        match self.unread.get(1)? {
            126 => Some((4, u16::from_be_bytes(*self.unread.get(2..4)?.first_chunk()?).into())),
            127 => Some((10, usize::try_from(u64::from_be_bytes(*self.unread.get(2..10)?.first_chunk()?)).ok()?)),
            length => Some((2, usize::from(*length))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_ping_is_answered_between_texts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            assert!(request.starts_with(b"GET /room HTTP/1.1\r\n"), "{request:?}");
            let long = [&[TEXT, 126, 0, 200][..], &[b'x'; 200]].concat();
            let frames = [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &long[..], &[PING, 2], b"ab", &[TEXT, 1, b'y']];
            stream.write_all(&frames.concat()).await.unwrap();
            let mut said = [0; 8 + 7];
            stream.read_exact(&mut said).await.unwrap();
            said
        };
        let client = async {
            let mut socket = WebSocket::connect(address, "/room", None).await.unwrap();
            let texts = [socket.next().await.unwrap(), socket.next().await.unwrap()];
            socket.send("z").await.unwrap();
            texts
        };
        let (said, texts) = tokio::join!(server, client);
        assert_eq!(texts, [vec![b'x'; 200], vec![b'y']]);
        assert_eq!(said, *b"\x8a\x82\0\0\0\0ab\x81\x81\0\0\0\0z");
    }
}
