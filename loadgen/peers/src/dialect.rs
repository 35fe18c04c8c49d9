//! The protocols of servers for browsers, as far as one room needs them: texts over WebSocket, each of one line or several.

use crate::program::Peer;

/// A client's side of a protocol.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Path of the request that becomes a WebSocket.
    pub path: &'static str,
    /// Subprotocol that it asks for.
    pub subprotocol: Option<&'static str>,
    /// How a connection begins.
    pub greeting: Vec<Exchange>,
    /// How it comes to get what is said in the room.
    pub joining: Exchange,
    /// What says something in the room: a message's number and its text, in which nothing has to be escaped.
    pub publish: fn(u64, &str) -> String,
    /// How the line begins that acknowledges it, if there is one.
    pub published: Option<&'static str>,
    /// How a line begins that was said in the room.
    pub message: &'static str,
    /// A line that is there to be answered, and its answer.
    pub heartbeat: Option<[&'static str; 2]>,
}

/// Something that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What the client says, unless the server begins.
    pub say: Option<String>,
    /// How the answer begins.
    pub answer: &'static str,
}

/// What a line of the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A text of the room, which begins with this number.
    Message(u64),
    /// The acknowledgement of a message.
    Published,
    /// To be answered with this.
    Heartbeat(&'static str),
    /// Nothing that is expected once a connection stands.
    Other,
}

impl Exchange {
    /// Something that the client says.
    pub fn new(say: impl Into<String>, answer: &'static str) -> Self {
        Self { say: Some(say.into()), answer }
    }

    fn of_server(answer: &'static str) -> Self {
        Self { say: None, answer }
    }
}

impl Dialect {
    /// Of a peer; of none that is not for browsers.
    pub fn of(peer: Peer) -> Option<Self> {
        match peer {
            Peer::Nats | Peer::Redis | Peer::Mosquitto | Peer::MoqRelay => None,
            Peer::Ws | Peer::UWebSockets => Some(Self::room()),
            Peer::SocketIo => Some(Self::socket_io()),
            Peer::Centrifugo => Some(Self::centrifugo()),
        }
    }

    fn room() -> Self {
        Self {
            path: "/",
            subprotocol: None,
            greeting: Vec::new(),
            joining: Exchange::new(r#"{"op":"JOIN"}"#, r#"{"op":"JOINED"}"#),
            publish: |_, text| format!(r#"{{"op":"SEND","text":"{text}"}}"#),
            published: None,
            message: r#"{"op":"EVENT","#,
            heartbeat: None,
        }
    }

    fn socket_io() -> Self {
        Self {
            path: "/socket.io/?EIO=4&transport=websocket",
            subprotocol: None,
            greeting: vec![Exchange::of_server("0{"), Exchange::new("40", "40{")],
            joining: Exchange::new(r#"42["JOIN"]"#, r#"42["JOINED"]"#),
            publish: |_, text| format!(r#"42["SEND",{{"text":"{text}"}}]"#),
            published: None,
            message: r#"42["EVENT","#,
            heartbeat: Some(["2", "3"]),
        }
    }

    fn centrifugo() -> Self {
        Self {
            path: "/connection/websocket",
            subprotocol: None,
            greeting: vec![Exchange::new(r#"{"id":1,"connect":{}}"#, r#"{"id":1,"connect":"#)],
            joining: Exchange::new(r#"{"id":2,"subscribe":{"channel":"room"}}"#, r#"{"id":2,"subscribe":"#),
            // Answers come in order, so they need no other numbers.
            publish: |_, text| format!(r#"{{"id":3,"publish":{{"channel":"room","data":{{"text":"{text}"}}}}}}"#),
            published: Some(r#"{"id":3,"publish":"#),
            message: r#"{"push":{"channel":"room","pub":"#,
            heartbeat: Some(["{}", "{}"]),
        }
    }

    /// What a line is.
    pub fn read(&self, line: &[u8]) -> Line {
        if line.starts_with(self.message.as_bytes()) {
            return text_number(line).map_or(Line::Other, Line::Message);
        }
        match (self.heartbeat, self.published) {
            (Some([beat, answer]), _) if line == beat.as_bytes() => Line::Heartbeat(answer),
            (_, Some(published)) if line.starts_with(published.as_bytes()) => Line::Published,
            _ => Line::Other,
        }
    }
}

/// The number that the text in a line begins with.
fn text_number(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = br#""text":""#;
    let at = line.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits = line[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(peer: Peer, line: &str) -> Line {
        Dialect::of(peer).unwrap().read(line.as_bytes())
    }

    #[test]
    fn a_message_is_known_by_the_number_of_its_text() {
        let said = r#"{"op":"EVENT","seq":2,"sender":"ann","text":"17 xxx"}"#;
        assert_eq!(read(Peer::Ws, said), Line::Message(17));
        assert_eq!(read(Peer::SocketIo, r#"42["EVENT",{"seq":2,"text":"3 x"}]"#), Line::Message(3));
        let said = r#"{"push":{"channel":"room","pub":{"data":{"text":"4 x"},"info":{"client":"7"}}}}"#;
        assert_eq!(read(Peer::Centrifugo, said), Line::Message(4));
        assert_eq!(read(Peer::Ws, r#"{"op":"EVENT","text":"x"}"#), Line::Other);
    }

    #[test]
    fn other_lines_are_told_apart() {
        assert_eq!(read(Peer::SocketIo, "2"), Line::Heartbeat("3"));
        assert_eq!(read(Peer::Centrifugo, "{}"), Line::Heartbeat("{}"));
        assert_eq!(read(Peer::Centrifugo, r#"{"id":3,"publish":{}}"#), Line::Published);
        assert_eq!(read(Peer::Centrifugo, r#"{"id":3,"error":{"code":103}}"#), Line::Other);
        assert_eq!(read(Peer::UWebSockets, r#"{"op":"JOINED"}"#), Line::Other);
        assert!(Dialect::of(Peer::Nats).is_none());
    }

    #[test]
    fn what_is_said_in_a_room_is_json() {
        for peer in Peer::ALL {
            let Some(dialect) = Dialect::of(peer) else { continue };
            let said = (dialect.publish)(1, "1 x");
            let json = said.strip_prefix("42").unwrap_or(&said);
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{said}");
        }
    }
}
