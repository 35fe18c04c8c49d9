//! A browser: a WebSocket to one server or another, in one room, read line by line.

use std::{io, net::SocketAddr, ops::Range};

use antiphon_peers::{Dialect, Exchange, Line};
use thiserror::Error;

use crate::websocket::WebSocket;

/// A connection that stands.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket,
    dialect: Dialect,
    /// What came last, and how much of it was read.
    text: Vec<u8>,
    read: usize,
}

/// What a browser hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The message of this number.
    Message(u64),
    /// That a message of its own is in the room.
    Published,
}

/// Why it hears nothing more.
#[derive(Debug, Error)]
pub enum BrowserError {
    /// The connection cannot be made, or is gone.
    #[error("the socket failed")]
    Io(#[from] io::Error),
    /// The server says something else.
    #[error("the server said {0:?}")]
    Unexpected(String),
}

impl Browser {
    /// Connects and says what comes first.
    pub async fn open(address: SocketAddr, dialect: Dialect) -> Result<Self, BrowserError> {
        let socket = WebSocket::connect(address, dialect.path, dialect.subprotocol).await?;
        let mut browser = Self { socket, dialect, text: Vec::new(), read: 0 };
        for exchange in std::mem::take(&mut browser.dialect.greeting) {
            browser.ask(&exchange).await?;
        }
        Ok(browser)
    }

    /// From now on it gets what is said in the room.
    pub async fn join(&mut self) -> Result<(), BrowserError> {
        let joining = self.dialect.joining.clone();
        self.ask(&joining).await
    }

    /// Says something in the room.
    pub async fn publish(&mut self, number: u64, text: &str) -> Result<(), BrowserError> {
        Ok(self.socket.send(&(self.dialect.publish)(number, text)).await?)
    }

    /// Whether the server acknowledges that.
    pub fn is_acknowledged(&self) -> bool {
        self.dialect.published.is_some()
    }

    /// What it hears next. Cancel-safe.
    pub async fn next(&mut self) -> Result<Heard, BrowserError> {
        loop {
            let line = self.line().await?;
            match self.dialect.read(&self.text[line.clone()]) {
                Line::Message(number) => return Ok(Heard::Message(number)),
                Line::Published => return Ok(Heard::Published),
                Line::Heartbeat(answer) => self.socket.queue(answer)?,
                Line::Other => return Err(self.unexpected(line)),
            }
        }
    }

    async fn ask(&mut self, exchange: &Exchange) -> Result<(), BrowserError> {
        if let Some(say) = &exchange.say {
            self.socket.send(say).await?;
        }
        let line = self.line().await?;
        match self.text[line.clone()].starts_with(exchange.answer.as_bytes()) {
            true => Ok(()),
            false => Err(self.unexpected(line)),
        }
    }

    /// Where the next line is in the text. Cancel-safe.
    async fn line(&mut self) -> io::Result<Range<usize>> {
        while self.read >= self.text.len() {
            (self.text, self.read) = (self.socket.next().await?, 0);
        }
        let start = self.read;
        let length = self.text[start..].split(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
        self.read = start + length + 1;
        Ok(start..start + length)
    }

    fn unexpected(&self, line: Range<usize>) -> BrowserError {
        BrowserError::Unexpected(String::from_utf8_lossy(&self.text[line]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use antiphon_peers::Peer;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn say(stream: &mut TcpStream, text: &str) {
        let frame = [&[0x81, text.len() as u8], text.as_bytes()].concat();
        stream.write_all(&frame).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream, text: &str) {
        let mut frame = vec![0; 6 + text.len()];
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[6..], *text.as_bytes());
    }

    /// What Centrifugo says, and what it is answered.
    async fn serve(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        hear(&mut stream, r#"{"id":1,"connect":{}}"#).await;
        say(&mut stream, r#"{"id":1,"connect":{"client":"c"}}"#).await;
        hear(&mut stream, r#"{"id":2,"subscribe":{"channel":"room"}}"#).await;
        let message = r#"{"push":{"channel":"room","pub":{"data":{"text":"1 x"}}}}"#;
        say(&mut stream, &format!("{}\n{message}", r#"{"id":2,"subscribe":{}}"#)).await;
        say(&mut stream, "{}").await;
        say(&mut stream, r#"{"id":3,"error":{"code":103}}"#).await;
        hear(&mut stream, "{}").await;
    }

    #[tokio::test]
    async fn lines_are_heard_one_by_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener));
        let mut browser = Browser::open(address, Dialect::of(Peer::Centrifugo).unwrap()).await.unwrap();
        browser.join().await.unwrap();
        assert_eq!(browser.next().await.unwrap(), Heard::Message(1));
        let refused = browser.next().await.unwrap_err();
        assert!(matches!(&refused, BrowserError::Unexpected(line) if line.contains("103")), "{refused}");
        // The answer to the heartbeat before it goes out with what it says next.
        browser.publish(1, "1 x").await.unwrap();
        server.await.unwrap();
    }
}
