//! An edge that carries the clients of one shard on a trunk, and does with its frames what every edge does.

use antiphon_core::ConnectionId;
use antiphon_edge::{Groups, Recipients};
use antiphon_protocol::{
    Class, FrameType, control, frames,
    limits::FRAME_BYTES_MAX,
    trunk::{Prefix, TrunkDecoder},
};
use bytes::Bytes;

/// Event bytes that wait for one client. More: it lags.
const EVENTS_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) trunk: ConnectionId,
    pub(crate) groups: Groups,
    pub(crate) channels: u32,
    /// Frames for groups that came.
    pub(crate) for_groups: usize,
    /// What the broker said to the edge itself.
    pub(crate) farewell: Option<control::Error>,
    /// Whether it reads its streams.
    pub(crate) reads: bool,
    decoders: [TrunkDecoder; 5],
}

/// What a frame of the trunk is to a client.
#[derive(Debug)]
pub(crate) enum Carried {
    Frame { channel: u32, class: Class, frame: Bytes },
    Closed { channel: u32, number: u32 },
}

impl Edge {
    pub(crate) fn new(trunk: ConnectionId) -> Self {
        let decoders = std::array::from_fn(|_| TrunkDecoder::new(FRAME_BYTES_MAX));
        Self { trunk, groups: Groups::default(), channels: 0, for_groups: 0, farewell: None, reads: true, decoders }
    }

    /// Takes in bytes of one stream of the trunk.
    pub(crate) fn read(&mut self, stream: Class, bytes: Bytes) {
        self.decoders[stream as usize].push(bytes);
    }

    /// For whom the next frame of a stream is.
    pub(crate) fn next(&mut self, stream: Class) -> Option<Vec<Carried>> {
        let decoder = &mut self.decoders[stream as usize];
        let Some(carried) = decoder.next_frame().unwrap() else {
            assert_eq!(decoder.buffered(), 0, "whole frames are written");
            return None;
        };
        let mut out = Vec::new();
        let frame_type = FrameType::from_number(carried.header.type_number).unwrap();
        let class = frame_type.class();
        assert!(class == stream || carried.prefix.is_group && stream == Class::Events, "{}", frame_type.name());
        let frame = Bytes::from([carried.header_bytes.clone(), carried.body.clone()].concat());
        let mut hand = |channel| out.push(Carried::Frame { channel, class, frame: frame.clone() });
        self.for_groups += usize::from(carried.prefix.is_group);
        match self.groups.route(&carried).unwrap() {
            Recipients::Nobody => {}
            Recipients::Edge => self.farewell = Some(frames::decode_answer(&carried.body).unwrap()),
            Recipients::Channel(channel) => hand(channel),
            Recipients::Group(group) => group.for_each(hand),
            Recipients::Last(channel) => out.push(Carried::Closed { channel, number: carried.header.id }),
        }
        Some(out)
    }

    /// The LAG of a client that has so much waiting, if that is too much.
    pub(crate) fn lag(&mut self, channel: u32, waiting: usize, frame: &Bytes) -> Option<Bytes> {
        let handle = u32::from_le_bytes(*frame[8..].first_chunk().unwrap());
        let is_event = frame[4] == FrameType::Event as u8;
        if !is_event || waiting == 0 || waiting + frame.len() <= EVENTS_MAX {
            return None;
        }
        self.groups.lag(handle, channel);
        Some(carry(channel, &frames::raw(FrameType::Lag, handle, b"")))
    }
}

/// A client's frame on a trunk.
pub(crate) fn carry(channel: u32, frame: &[u8]) -> Bytes {
    Bytes::from([&Prefix::channel(channel).encode()[..], frame].concat())
}
