//! Readers on bare WebSockets: each event has to come once, in its place; texts say when they were sent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    report::{Latencies, LatencySummary},
    websocket::WebSocket,
};

/// What all readers of a run have seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers {
    in_order: Arc<AtomicU64>,
    latencies: Arc<Mutex<Latencies>>,
}

/// Opens a socket that follows `log` with what comes.
///
/// # Errors
///
/// The gateway cannot be reached, or refuses the session.
pub(crate) async fn open(
    gateway: SocketAddr,
    token: &str,
    log: &str,
    receive_bytes: Option<u32>,
) -> io::Result<WebSocket> {
    let (path, protocol) = ("/api/v1/socket", Some("antiphon.json.v1"));
    let mut socket = match receive_bytes {
        Some(bytes) => WebSocket::connect_narrow(gateway, path, protocol, bytes).await?,
        None => WebSocket::connect(gateway, path, protocol).await?,
    };
    socket.send(&json!({ "op": "HELLO", "id": 1, "versions": [1], "token": token }).to_string()).await?;
    expect(&mut socket, "WELCOME").await?;
    socket.send(&json!({ "op": "SUBSCRIBE", "id": 2, "log": log, "tail": true }).to_string()).await?;
    expect(&mut socket, "ATTACH").await?;
    Ok(socket)
}

async fn expect(socket: &mut WebSocket, op: &str) -> io::Result<()> {
    let answer = socket.next().await?;
    match answer.starts_with(format!("{{\"op\":\"{op}\"").as_bytes()) {
        true => Ok(()),
        false => Err(io::Error::other(format!("{op} was expected, not {}", String::from_utf8_lossy(&answer)))),
    }
}

impl Readers {
    /// A text of so many bytes, or few more.
    pub(crate) fn text(bytes: usize) -> String {
        let sent = format!("{} ", now_us());
        let rest = bytes.saturating_sub(sent.len());
        sent + &"x".repeat(rest)
    }

    /// Reads a socket until it ends.
    pub(crate) fn follow(&self, mut socket: WebSocket) {
        let readers = self.clone();
        tokio::spawn(async move {
            let mut last = None;
            while let Ok(message) = socket.next().await {
                let lines = message.split(|byte| *byte == b'\n');
                lines
                    .filter(|line| line.starts_with(b"{\"op\":\"EVENT\""))
                    .for_each(|line| readers.note(line, &mut last));
            }
        });
    }

    /// Events that came in their places: the first one of a socket, or the one after the one before.
    pub(crate) fn in_order(&self) -> u64 {
        self.in_order.load(Ordering::Relaxed)
    }

    /// Times since the last call.
    pub(crate) fn take_latency(&self) -> Option<LatencySummary> {
        std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner)).summary()
    }

    fn note(&self, line: &[u8], last: &mut Option<u64>) {
        let Some(seq) = number_after(line, b"\"seq\":") else { return };
        if last.is_none_or(|last| seq == last + 1) {
            self.in_order.fetch_add(1, Ordering::Relaxed);
        }
        *last = Some(seq);
        if let Some(sent) = number_after(line, b"\"text\":\"") {
            let latency = Duration::from_micros(now_us().saturating_sub(sent));
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(latency);
        }
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn number_after(line: &[u8], name: &[u8]) -> Option<u64> {
    let at = line.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0_u64, |number, digit| number.wrapping_mul(10) + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_only_in_its_place() {
        let (readers, mut last) = (Readers::default(), None);
        for seq in [5, 6, 8, 9, 9] {
            let line = format!("{{\"op\":\"EVENT\",\"handle\":1,\"seq\":{seq},\"text\":\"{}\"}}", Readers::text(40));
            readers.note(line.as_bytes(), &mut last);
        }
        assert_eq!(readers.in_order(), 3);
        assert!(readers.take_latency().is_some() && readers.take_latency().is_none());
    }
}
