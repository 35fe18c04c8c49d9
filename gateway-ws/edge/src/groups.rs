//! Groups of channels, as the broker's frames make them.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use antiphon_protocol::{DecodeError, FrameType, control::Attach, frames, trunk::Carried};

/// The channels of one trunk and the handles that they follow.
#[derive(Debug, Default)]
pub struct Groups {
    /// Handle -> channel -> where its live events begin.
    groups: BTreeMap<u32, BTreeMap<u32, u64>>,
    /// Channel -> handles.
    channels: BTreeMap<u32, BTreeSet<u32>>,
    /// Channels and handles of which the edge has thrown something away, until the broker says BEHIND.
    lagging: BTreeSet<(u32, u32)>,
}

/// Whom a frame of the broker is for.
#[derive(Debug)]
pub enum Recipients<'a> {
    /// The edge itself.
    Edge,
    /// A channel that lags.
    Nobody,
    /// One channel, which the edge may have closed meanwhile.
    Channel(u32),
    /// One channel, which is over with this frame.
    Last(u32),
    /// Every channel that comes out of the iterator.
    Group(Group<'a>),
}

/// Channels of a group, in the order of their numbers.
#[derive(Debug)]
pub struct Group<'a> {
    members: Option<btree_map::Iter<'a, u32, u64>>,
    /// Position of the event; what is no event is for members of any `live_from`.
    seq: u64,
    except: u32,
}

impl Iterator for Group<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let members = self.members.as_mut()?;
        members.find(|(channel, live_from)| **live_from <= self.seq && **channel != self.except).map(|(id, _)| *id)
    }
}

impl Groups {
    /// Takes in the next frame of one of the trunk's streams.
    ///
    /// # Errors
    ///
    /// An ATTACH or a frame for a group that cannot be read: the broker is at fault, and the trunk is of no more use.
    pub fn route(&mut self, carried: &Carried) -> Result<Recipients<'_>, DecodeError> {
        let (channel, id) = (carried.prefix.channel, carried.header.id);
        if carried.prefix.is_group {
            let seq = first_position(carried)?;
            let members = self.groups.get(&id).map(BTreeMap::iter);
            return Ok(Recipients::Group(Group { members, seq, except: channel }));
        }
        if channel == 0 {
            return Ok(Recipients::Edge);
        }
        match FrameType::from_number(carried.header.type_number) {
            Some(FrameType::Attach) => {
                let attach: Attach = frames::decode_answer(&carried.body)?;
                self.groups.entry(attach.handle).or_default().insert(channel, attach.live_from);
                self.channels.entry(channel).or_default().insert(attach.handle);
                self.lagging.remove(&(channel, attach.handle));
            }
            Some(FrameType::Behind | FrameType::Detach) => {
                self.leave(id, channel);
                self.lagging.remove(&(channel, id));
                if let btree_map::Entry::Occupied(mut handles) = self.channels.entry(channel) {
                    handles.get_mut().remove(&id);
                    if handles.get().is_empty() {
                        handles.remove();
                    }
                }
            }
            Some(FrameType::Event | FrameType::Skip) if self.lagging.contains(&(channel, id)) => {
                return Ok(Recipients::Nobody);
            }
            Some(FrameType::ChannelClosed) => {
                self.close(channel);
                return Ok(Recipients::Last(channel));
            }
            _ => {}
        }
        Ok(Recipients::Channel(channel))
    }

    /// A channel does not keep up with a handle, and a frame of it was thrown away: nothing of that subscription is for
    /// the channel any more. The edge tells the broker by LAG, which answers with BEHIND.
    pub fn lag(&mut self, handle: u32, channel: u32) {
        self.leave(handle, channel);
        self.lagging.insert((channel, handle));
    }

    /// The edge has closed a channel: nothing is for it any more.
    pub fn close(&mut self, channel: u32) {
        for handle in self.channels.remove(&channel).into_iter().flatten() {
            self.leave(handle, channel);
            self.lagging.remove(&(channel, handle));
        }
    }

    fn leave(&mut self, handle: u32, channel: u32) {
        if let btree_map::Entry::Occupied(mut group) = self.groups.entry(handle) {
            group.get_mut().remove(&channel);
            if group.get().is_empty() {
                group.remove();
            }
        }
    }

    /// Whether a channel is in the group of a handle.
    pub fn is_member(&self, handle: u32, channel: u32) -> bool {
        self.groups.get(&handle).is_some_and(|group| group.contains_key(&channel))
    }

    /// Groups, and members of all groups together.
    pub fn len(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.values().map(BTreeMap::len).sum())
    }

    /// Whether nobody follows anything.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// The first position that an event or a skip is about. Everything else is for all: as if beyond every `live_from`.
fn first_position(carried: &Carried) -> Result<u64, DecodeError> {
    match FrameType::from_number(carried.header.type_number) {
        Some(FrameType::Event | FrameType::Skip) => {
            let bytes = carried.body.first_chunk().ok_or(DecodeError::Truncated { field: "seq" })?;
            Ok(u64::from_le_bytes(*bytes))
        }
        _ => Ok(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{
        control::Detach,
        limits::FRAME_BYTES_MAX,
        trunk::{Prefix, TrunkDecoder},
    };
    use bytes::Bytes;

    use super::*;

    fn carried(prefix: Prefix, frame: &[u8]) -> Carried {
        let mut decoder = TrunkDecoder::new(FRAME_BYTES_MAX);
        decoder.push(Bytes::from([&prefix.encode()[..], frame].concat()));
        decoder.next_frame().unwrap().unwrap()
    }

    fn attach(groups: &mut Groups, channel: u32, handle: u32, live_from: u64) {
        let frame = frames::control(FrameType::Attach, 1, &Attach { handle, live_from, ..Attach::default() });
        assert!(matches!(
            groups.route(&carried(Prefix::channel(channel), &frame)),
            Ok(Recipients::Channel(n)) if n == channel
        ));
    }

    fn group(groups: &mut Groups, prefix: Prefix, frame: &[u8]) -> Vec<u32> {
        match groups.route(&carried(prefix, frame)) {
            Ok(Recipients::Group(group)) => group.collect(),
            other => panic!("{other:?}"),
        }
    }

    fn event(handle: u32, seq: u64) -> Bytes {
        frames::raw(FrameType::Event, handle, &seq.to_le_bytes())
    }

    #[test]
    fn an_event_is_for_those_who_are_attached_and_not_ahead_of_it() {
        let mut groups = Groups::default();
        attach(&mut groups, 1, 7, 5);
        attach(&mut groups, 2, 7, 6);
        attach(&mut groups, 3, 8, 1);
        assert_eq!(group(&mut groups, Prefix::GROUP, &event(7, 5)), [1]);
        assert_eq!(group(&mut groups, Prefix::GROUP, &event(7, 6)), [1, 2]);
        assert_eq!(group(&mut groups, Prefix::GROUP, &event(9, 6)), []);
    }

    #[test]
    fn what_is_no_event_is_for_all_but_its_author() {
        let mut groups = Groups::default();
        attach(&mut groups, 1, 7, u64::MAX);
        attach(&mut groups, 2, 7, 1);
        let signal = frames::raw(FrameType::Signaled, 7, b"");
        assert_eq!(group(&mut groups, Prefix { channel: 2, is_group: true }, &signal), [1]);
        assert_eq!(group(&mut groups, Prefix::GROUP, &signal), [1, 2]);
    }

    #[test]
    fn behind_detach_and_the_end_of_a_channel_take_it_out() {
        let mut groups = Groups::default();
        (1..=4).for_each(|channel| attach(&mut groups, channel, 7, 1));
        let frames = [
            (1, frames::raw(FrameType::Behind, 7, b"")),
            (2, frames::control(FrameType::Detach, 7, &Detach::default())),
        ];
        for (channel, frame) in frames {
            let recipients = groups.route(&carried(Prefix::channel(channel), &frame));
            assert!(matches!(recipients, Ok(Recipients::Channel(n)) if n == channel));
        }
        let closed = frames::raw(FrameType::ChannelClosed, 2_002, b"");
        assert!(matches!(groups.route(&carried(Prefix::channel(3), &closed)), Ok(Recipients::Last(3))));
        assert_eq!(group(&mut groups, Prefix::GROUP, &event(7, 5)), [4]);
        groups.close(4);
        assert!(groups.is_empty() && groups.channels.is_empty());
    }

    #[test]
    fn whoever_lags_gets_nothing_until_the_next_attach() {
        let mut groups = Groups::default();
        attach(&mut groups, 1, 7, 1);
        attach(&mut groups, 2, 7, 1);
        groups.lag(7, 1);
        assert_eq!(group(&mut groups, Prefix::GROUP, &event(7, 5)), [2]);
        let inlined = carried(Prefix::channel(1), &event(7, 5));
        assert!(matches!(groups.route(&inlined), Ok(Recipients::Nobody)));
        let behind = carried(Prefix::channel(1), &frames::raw(FrameType::Behind, 7, b""));
        assert!(matches!(groups.route(&behind), Ok(Recipients::Channel(1))));
        attach(&mut groups, 1, 7, 6);
        assert!(matches!(groups.route(&inlined), Ok(Recipients::Channel(1))));
        groups.lag(7, 1);
        groups.close(1);
        assert!(groups.lagging.is_empty());
    }
}
