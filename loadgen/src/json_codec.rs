//! The JSON form of a gateway under the binary SDK: what browsers say and are told, checked like everything else.

use antiphon_gateway_ws::json;
use antiphon_protocol::{Decoder, Direction, limits::FRAME_BYTES_MAX};
use antiphon_sdk::MessageCodec;
use bytes::{Bytes, BytesMut};

/// Frames as lines, by the gateway's own code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonCodec;

impl MessageCodec for JsonCodec {
    fn protocol(&self) -> &'static str {
        "antiphon.json.v1"
    }

    fn encode(&self, frame: &Bytes) -> Result<String, String> {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(frame.clone());
        let raw = decoder.next_frame().map_err(|error| error.to_string())?.ok_or("a frame is cut short")?;
        let mut line = BytesMut::with_capacity(2 * frame.len() + 128);
        json::encode(&raw, None, &mut line).map_err(|error| error.to_string())?;
        String::from_utf8(line.into()).map_err(|error| error.to_string())
    }

    fn decode(&self, line: &str) -> Result<Bytes, String> {
        let decoded = json::decode(line.as_bytes(), Direction::ToClient);
        decoded.map(|decoded| decoded.frame).map_err(|error| format!("{}: {}", error.field, error.message))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{FrameType, control, frames};

    use super::*;

    #[test]
    fn a_frame_is_a_line_and_a_line_is_a_frame() {
        let frame = frames::control(FrameType::Join, 7, &control::Join { conversation: "tea".into() });
        let line = JsonCodec.encode(&frame).unwrap();
        assert_eq!(line, r#"{"op":"JOIN","id":7,"conversation":"tea"}"#);
        let decoded = JsonCodec.decode(r#"{"op":"RESUME","jitter_ms":9}"#).unwrap();
        assert_eq!(decoded, frames::control(FrameType::Resume, 0, &control::Resume { jitter_ms: 9 }));
        assert!(JsonCodec.decode(&line).is_err(), "no broker says this");
        assert!(JsonCodec.encode(&frame.slice(..13)).is_err());
    }
}
