//! What `SPEC.md` says of bodies, so that the tests do not have it from the code that they test.

use std::fs;

use antiphon_protocol::{EventKind, FrameType};

/// A frame that may be carried as JSON.
pub(crate) struct Frame {
    pub(crate) frame_type: FrameType,
    /// Its Protobuf message, if it is one.
    pub(crate) message: Option<String>,
    /// The message in the OK that answers it.
    pub(crate) answer: Option<String>,
}

fn rows(cells: usize) -> impl Iterator<Item = Vec<String>> {
    let spec = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/SPEC.md")).unwrap();
    let rows =
        spec.lines().map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect()).collect::<Vec<Vec<_>>>();
    rows.into_iter().filter(move |row| row.len() == cells + 2).map(move |mut row| row.drain(1..=cells).collect())
}

pub(crate) fn frames() -> Vec<Frame> {
    let frames = rows(8).filter_map(|cells| {
        let frame_type = FrameType::from_name(&cells[1])?;
        let is_trunk = cells[7].starts_with("on trunks only") || (0x60..0x70).contains(&(frame_type as u8));
        let message = Some(cells[6].clone()).filter(|body| body.starts_with(|first: char| first.is_ascii_uppercase()));
        let answer = cells[7].strip_prefix("OK(").and_then(|rest| rest.split(')').next()).map(str::to_owned);
        (!is_trunk).then_some(Frame { frame_type, message, answer })
    });
    frames.collect()
}

/// Kinds of events that brokers make, and their messages.
pub(crate) fn broker_events() -> Vec<(EventKind, String)> {
    let events = rows(4).filter_map(|cells| {
        let kind = EventKind::from_name(&cells[1])?;
        let body = cells[3].strip_suffix(", content type 3")?;
        Some((kind, body.trim_start_matches("in an inbox: ").to_owned()))
    });
    events.collect()
}
