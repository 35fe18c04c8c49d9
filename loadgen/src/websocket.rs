//! A WebSocket client (RFC 6455) that costs next to nothing: benches measure servers, not clients.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

/// A connection on which text messages travel.
#[derive(Debug)]
pub struct WebSocket {
    stream: TcpStream,
    unread: Vec<u8>,
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
        Ok(Self { stream, unread })
    }

    /// Sends a text. Its mask is zero, which keeps the bytes as they are.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        let mut frame = vec![TEXT];
        match text.len() {
            length @ 0..126 => frame.push(MASKED | length as u8),
            length => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&u16::try_from(length).map_err(io::Error::other)?.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).await
    }

    /// The next text; control frames are passed over.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((head, length)) = self.head()
                && self.unread.len() >= head + length
            {
                let is_text = self.unread[0] == TEXT;
                let payload = self.unread[head..head + length].to_vec();
                self.unread.drain(..head + length);
                if is_text {
                    return Ok(payload);
                }
                continue;
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
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
