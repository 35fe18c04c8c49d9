//! A minimal CQL client: enough to see that a node answers, whom it reaches, and what it keeps.
//!
//! Version 4 of the native protocol, one request at a time, plain text values. Not for load: it waits for each answer.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use thiserror::Error;

use crate::wire::{ANSWER, HEADER_BYTES, Reader, put_string};

/// Version 4.
const VERSION: u8 = 0x04;
/// Far more than the answers that this client asks for.
const ANSWER_BYTES_MAX: u32 = 16 << 20;
/// The answer begins with a list of warnings.
const FLAG_WARNING: u8 = 0x08;
/// In a query: types of columns are not wanted. In rows: they are not there.
const QUERY_SKIP_METADATA: u8 = 0x02;
const ROWS_HAVE_PAGING_STATE: u32 = 0x02;
const ROWS_WITHOUT_METADATA: u32 = 0x04;
const RESULT_ROWS: u32 = 2;

/// Its name and its password, as SASL's PLAIN has them.
const SUPERUSER: &[u8] = b"\0cassandra\0cassandra";

/// How many replicas must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Consistency {
    /// One.
    One = 1,
    /// Two.
    Two = 2,
    /// Three.
    Three = 3,
    /// More than half.
    Quorum = 4,
    /// All.
    All = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Opcode {
    Error = 0x00,
    Startup = 0x01,
    Ready = 0x02,
    Authenticate = 0x03,
    Options = 0x05,
    Supported = 0x06,
    Query = 0x07,
    Result = 0x08,
    AuthResponse = 0x0F,
    AuthSuccess = 0x10,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The connection cannot be made, broke, or was silent for too long.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The server answered with an error.
    #[error("the server refused: {message} (code {code:#06x})")]
    Refused {
        /// As the protocol numbers them, `0x1000` for "not enough replicas are up".
        code: u32,
        /// In words.
        message: String,
    },
    /// It answered something that is not CQL, or not what this client understands.
    #[error("the server's answer was not understood: {0}")]
    Answer(&'static str),
}

/// A value of a row, as the server encodes it; `None` is null.
pub type Value = Option<Vec<u8>>;

/// Plain, or TLS.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection to one node.
pub struct Connection {
    stream: Box<dyn Stream>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and logs in: as superuser `cassandra` if the node asks who it is. Every answer, this one included, may
    /// take as long as `timeout`.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Self, ConnectionError> {
        Self::open_with(address, timeout, None)
    }

    /// The same with TLS, if there are settings for it.
    pub(crate) fn open_with(
        address: SocketAddr,
        timeout: Duration,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, ConnectionError> {
        let mut connection = Self::connect(address, timeout, tls)?;
        let mut startup = vec![0, 1];
        put_string(&mut startup, "CQL_VERSION");
        put_string(&mut startup, "3.0.0");
        match connection.ask(Opcode::Startup, &startup)? {
            (Opcode::Ready, _) => {}
            (Opcode::Authenticate, _) => connection.log_in()?,
            _ => return Err(ConnectionError::Answer("neither READY nor AUTHENTICATE")),
        }
        Ok(connection)
    }

    /// Whether the node speaks CQL: it answers OPTIONS with SUPPORTED.
    pub(crate) fn probe(
        address: SocketAddr,
        timeout: Duration,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<(), ConnectionError> {
        match Self::connect(address, timeout, tls)?.ask(Opcode::Options, &[])? {
            (Opcode::Supported, _) => Ok(()),
            _ => Err(ConnectionError::Answer("not SUPPORTED")),
        }
    }

    /// Runs a statement and returns its rows, of which there are none if it is not a `SELECT`. All rows come at once.
    pub fn query(&mut self, statement: &str, consistency: Consistency) -> Result<Vec<Vec<Value>>, ConnectionError> {
        let length =
            u32::try_from(statement.len()).map_err(|_| ConnectionError::Answer("the statement is too long"))?;
        let mut body = length.to_be_bytes().to_vec();
        body.extend_from_slice(statement.as_bytes());
        body.extend_from_slice(&(consistency as u16).to_be_bytes());
        body.push(QUERY_SKIP_METADATA);
        match self.ask(Opcode::Query, &body)? {
            (Opcode::Result, body) => rows(&body).ok_or(ConnectionError::Answer("a malformed RESULT")),
            _ => Err(ConnectionError::Answer("not RESULT")),
        }
    }

    fn connect(
        address: SocketAddr,
        timeout: Duration,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self { stream: Box::new(stream) }) };
        let session = ClientConnection::new(tls, ServerName::IpAddress(address.ip().into()));
        let session = session.map_err(io::Error::other)?;
        Ok(Self { stream: Box::new(StreamOwned::new(session, stream)) })
    }

    fn log_in(&mut self) -> Result<(), ConnectionError> {
        let mut body = (SUPERUSER.len() as u32).to_be_bytes().to_vec();
        body.extend_from_slice(SUPERUSER);
        match self.ask(Opcode::AuthResponse, &body)? {
            (Opcode::AuthSuccess, _) => Ok(()),
            _ => Err(ConnectionError::Answer("not AUTH_SUCCESS")),
        }
    }

    fn ask(&mut self, opcode: Opcode, body: &[u8]) -> Result<(Opcode, Vec<u8>), ConnectionError> {
        let length = u32::try_from(body.len()).map_err(|_| ConnectionError::Answer("the request is too long"))?;
        let mut frame = vec![VERSION, 0, 0, 0, opcode as u8];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(body);
        self.stream.write_all(&frame)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(Opcode, Vec<u8>), ConnectionError> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header)?;
        let [version, flags, _, _, opcode, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        if version != VERSION | ANSWER || length > ANSWER_BYTES_MAX {
            return Err(ConnectionError::Answer("not a frame of version 4"));
        }
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body)?;
        let mut rest = Reader(&body);
        if flags & FLAG_WARNING != 0 {
            rest.skip_strings().ok_or(ConnectionError::Answer("malformed warnings"))?;
        }
        match opcode_of(opcode).ok_or(ConnectionError::Answer("an unknown opcode"))? {
            Opcode::Error => Err(refusal(&mut rest).unwrap_or(ConnectionError::Answer("a malformed ERROR"))),
            opcode => Ok((opcode, rest.0.to_vec())),
        }
    }
}

fn opcode_of(byte: u8) -> Option<Opcode> {
    use Opcode::{AuthSuccess, Authenticate, Error, Ready, Result, Supported};
    [Error, Ready, Authenticate, Supported, Result, AuthSuccess].into_iter().find(|&opcode| opcode as u8 == byte)
}

fn rows(body: &[u8]) -> Option<Vec<Vec<Value>>> {
    let mut body = Reader(body);
    if body.u32()? != RESULT_ROWS {
        return Some(Vec::new());
    }
    let (flags, columns) = (body.u32()?, body.u32()?);
    if flags & ROWS_HAVE_PAGING_STATE != 0 {
        body.value()?;
    }
    if flags & ROWS_WITHOUT_METADATA == 0 {
        return None;
    }
    let count = body.u32()?;
    (0..count).map(|_| (0..columns).map(|_| body.value()).collect()).collect()
}

/// What the body of an ERROR says.
fn refusal(body: &mut Reader<'_>) -> Option<ConnectionError> {
    Some(ConnectionError::Refused { code: body.u32()?, message: body.string()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of two columns without metadata: ("a", null), ("", "bc").
    const ROWS: &[u8] = b"\0\0\0\x02\0\0\0\x04\0\0\0\x02\0\0\0\x02\
                          \0\0\0\x01a\xff\xff\xff\xff\0\0\0\0\0\0\0\x02bc";

    #[test]
    fn rows_have_values_and_nulls() {
        let value = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(rows(ROWS), Some(vec![vec![value("a"), None], vec![value(""), value("bc")]]));
        assert_eq!(rows(b"\0\0\0\x01"), Some(vec![]), "a result without rows");
    }

    #[test]
    fn no_part_of_rows_is_taken_for_the_whole() {
        for length in 0..ROWS.len() {
            assert_eq!(rows(&ROWS[..length]), None, "{length} bytes");
        }
    }
}
