//! Trunks: many sessions on one connection of an edge. What an edge has to know of a session travels with the channel's
//! number before it; a live event travels once for all channels that follow its log.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{
    Class, ErrorCode, FrameType,
    control::ChannelOpen,
    frames,
    limits::FRAME_BYTES_MAX,
    trunk::{Carried, Prefix, TrunkDecoder},
};
use bytes::{Bytes, BytesMut};

use super::Home;
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::{
        CHANNEL_SIGNAL_BYTES_MAX, CHANNEL_UNREAD_BYTES_MAX, CHANNELS_PER_TRUNK_MAX, TRUNK_EVENT_BYTES_MAX,
        TRUNK_FILL_BYTES,
    },
    outbox::Outbox,
    refusal::Refusal,
};

/// Prefixes are cut from blocks of so many bytes.
const PREFIXES_BYTES: usize = 4 << 10;

/// For every channel of a group.
static GROUP: [u8; 8] = Prefix::GROUP.encode();

/// A connection that carries sessions.
#[derive(Debug)]
pub(super) struct Trunk {
    id: ConnectionId,
    decoder: TrunkDecoder,
    /// Channels that the edge has opened and nobody has ended.
    pub(super) channels: BTreeMap<u32, ConnectionId>,
    /// The newest channel: numbers rise, so that none comes twice.
    newest: u32,
    /// Sessions with something in their outbox.
    pub(super) ready: VecDeque<ConnectionId>,
    /// Sessions whose frames were taken, or that wait for room, since something was last written.
    pub(super) taken: Vec<ConnectionId>,
    /// What goes into the streams, prefixes included.
    pub(super) outbox: Outbox,
    prefixes: BytesMut,
    /// Whether it is in the list of those with something to write.
    pub(super) is_listed: bool,
    /// Whether the edge has broken a rule: nothing more is read.
    is_failed: bool,
}

impl Trunk {
    pub(super) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            decoder: TrunkDecoder::new(FRAME_BYTES_MAX),
            channels: BTreeMap::new(),
            newest: 0,
            ready: VecDeque::new(),
            taken: Vec::new(),
            outbox: Outbox::default(),
            prefixes: BytesMut::new(),
            is_listed: false,
            is_failed: false,
        }
    }

    pub(super) fn list(&mut self, writable: &mut Vec<ConnectionId>) {
        if !self.is_listed {
            self.is_listed = true;
            writable.push(self.id);
        }
    }

    pub(super) fn events_bytes(&self) -> usize {
        self.outbox.lane(Class::Events).bytes()
    }

    /// Whether an event of so many bytes fits.
    pub(super) fn has_room_for_event(&self, bytes: usize) -> bool {
        self.events_bytes() == 0 || self.events_bytes() + bytes <= TRUNK_EVENT_BYTES_MAX
    }

    /// Whether more frames of sessions may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.bytes() - self.events_bytes() < TRUNK_FILL_BYTES
    }

    /// Bytes that were received and not read.
    pub(super) fn unread_bytes(&self) -> usize {
        self.decoder.buffered()
    }

    pub(super) fn push_event(&mut self, prefix: Prefix, frame: Bytes) {
        let prefix = self.prefix(prefix);
        self.outbox.push_mark(prefix);
        self.outbox.push_mark(frame);
    }

    fn prefix(&mut self, prefix: Prefix) -> Bytes {
        if prefix == Prefix::GROUP {
            return Bytes::from_static(&GROUP);
        }
        let bytes = prefix.encode();
        if self.prefixes.capacity() < bytes.len() {
            self.prefixes.reserve(PREFIXES_BYTES);
        }
        self.prefixes.extend_from_slice(&bytes);
        self.prefixes.split().freeze()
    }

    /// Takes the answers and states of a session, and one page.
    pub(super) fn take(&mut self, channel: u32, id: ConnectionId, outbox: &mut Outbox) {
        for (class, frames_max) in [(Class::Control, usize::MAX), (Class::State, usize::MAX), (Class::Backfill, 1)] {
            for _ in 0..frames_max {
                let Some(frame) = outbox.lane_mut(class).pop() else { break };
                let prefix = self.prefix(Prefix::channel(channel));
                let lane = self.outbox.lane_mut(class);
                lane.push(prefix);
                lane.push(frame);
            }
        }
        self.taken.push(id);
    }
}

impl Home {
    pub(crate) fn trunk_opened(&mut self, id: ConnectionId) {
        self.connections.insert_trunk(id);
    }

    /// Bytes of an edge.
    pub(super) fn trunk_received(&mut self, fx: &mut Effects, id: ConnectionId, bytes: Bytes) {
        if let Some(trunk) = self.connections.trunk_mut(id) {
            trunk.decoder.push(bytes);
        }
        while let Some(trunk) = self.connections.trunk_mut(id).filter(|trunk| !trunk.is_failed) {
            let result = trunk.decoder.next_frame().map_err(Refusal::from).and_then(|carried| match carried {
                Some(carried) => self.carried(fx, id, carried).map(|()| true),
                None => Ok(false),
            });
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(refusal) => return self.fail_trunk(fx, id, &refusal),
            }
        }
    }

    fn carried(&mut self, fx: &mut Effects, trunk: ConnectionId, carried: Carried) -> Result<(), Refusal> {
        let channel = carried.prefix.channel;
        if channel == 0 || carried.prefix.is_group {
            return Err(Refusal::field(ErrorCode::Malformed, "prefix", "an edge sends frames of one channel each"));
        }
        let kind = FrameType::from_number(carried.header.type_number);
        if kind == Some(FrameType::ChannelOpen) {
            return self.open_channel(fx, trunk, channel, &carried.body);
        }
        let Some(id) = self.connections.trunk(trunk).and_then(|trunk| trunk.channels.get(&channel).copied()) else {
            // It has ended here, and the edge does not know yet.
            return Ok(());
        };
        match kind {
            Some(FrameType::ChannelClose) => self.closed(fx, id),
            Some(FrameType::Lag) => self.behind(fx, carried.header.id, id),
            kind => self.channel_received(fx, id, kind, carried),
        }
        Ok(())
    }

    fn open_channel(
        &mut self,
        fx: &mut Effects,
        trunk: ConnectionId,
        channel: u32,
        body: &Bytes,
    ) -> Result<(), Refusal> {
        let open: ChannelOpen = frames::decode_request(body)?;
        if open.remote.parse::<std::net::SocketAddr>().is_err() {
            return Err(Refusal::field(ErrorCode::InvalidField, "remote", "an address and a port"));
        }
        let Some(owner) = self.connections.trunk_mut(trunk) else { return Ok(()) };
        if channel <= owner.newest {
            return Err(Refusal::field(ErrorCode::Malformed, "prefix", "a channel's number is above all before it"));
        }
        owner.newest = channel;
        if owner.channels.len() >= CHANNELS_PER_TRUNK_MAX {
            let farewell = Refusal::new(ErrorCode::Overloaded, "this trunk carries as many sessions as it may");
            let closed = frames::raw(FrameType::ChannelClosed, farewell.code as u32, &[]);
            for frame in [farewell.to_frame(0), closed] {
                let prefix = owner.prefix(Prefix::channel(channel));
                owner.outbox.push_control(prefix);
                owner.outbox.push_control(frame);
            }
            self.connections.list_trunk(trunk);
            return Ok(());
        }
        if let Some(id) = self.connections.insert_channel(trunk, channel) {
            self.opened_as(fx, id);
        }
        Ok(())
    }

    fn channel_received(&mut self, fx: &mut Effects, id: ConnectionId, kind: Option<FrameType>, carried: Carried) {
        let Some(connection) = self.connections.get(id) else { return };
        let unread = connection.decoder.buffered();
        if kind == Some(FrameType::Signal) && unread >= CHANNEL_SIGNAL_BYTES_MAX {
            return;
        }
        if unread + carried.body.len() > CHANNEL_UNREAD_BYTES_MAX {
            let message = "more requests are sent ahead than an edge may send";
            return self.close_with(fx, id, &Refusal::new(ErrorCode::LimitExceeded, message));
        }
        self.received(fx, id, carried.header_bytes);
        self.received(fx, id, carried.body);
    }

    /// The edge has broken a rule: the trunk ends.
    fn fail_trunk(&mut self, fx: &mut Effects, id: ConnectionId, refusal: &Refusal) {
        let Some(trunk) = self.connections.trunk_mut(id) else { return };
        trunk.is_failed = true;
        trunk.outbox.push_control(Bytes::copy_from_slice(&Prefix::channel(0).encode()));
        trunk.outbox.push_control(refusal.to_frame(0));
        self.connections.list_trunk(id);
        fx.refused(refusal.code);
        fx.close(id, refusal.code);
    }

    /// The trunk is gone, and with it its sessions.
    pub(super) fn trunk_closed(&mut self, fx: &mut Effects, id: ConnectionId) {
        let channels = self.connections.trunk_mut(id).map(|trunk| std::mem::take(&mut trunk.channels));
        for (_, channel) in channels.into_iter().flatten() {
            self.closed(fx, channel);
        }
        self.connections.remove_trunk(id);
    }

    /// Whether anybody may wait for something to be written.
    pub(crate) fn awaits_room(&self, id: ConnectionId) -> bool {
        match self.connections.trunk(id) {
            Some(trunk) => !trunk.ready.is_empty() || !trunk.taken.is_empty(),
            None => self.connections.get(id).is_some_and(|connection| connection.decoder.buffered() > 0),
        }
    }

    /// Something was written: requests that waited for room may go on, and sessions that said their last word are over.
    pub(crate) fn written(&mut self, fx: &mut Effects, id: ConnectionId) {
        if self.connections.trunk(id).is_none() {
            return self.process_frames(fx, id);
        }
        for taken in self.connections.taken(id) {
            let Some(connection) = self.connections.get_mut(taken) else { continue };
            connection.awaits_trunk = false;
            if connection.is_closing() && connection.outbox.is_empty() {
                self.closed(fx, taken);
            } else {
                self.process_frames(fx, taken);
            }
        }
    }

    /// Ends the connection once its outbox is written: a connection by its transport, a session on a trunk by a frame.
    pub(super) fn close(&mut self, fx: &mut Effects, id: ConnectionId, code: ErrorCode) {
        match self.connections.channel_of(id) {
            None => fx.close(id, code),
            Some(_) => {
                let frame = frames::raw(FrameType::ChannelClosed, code as u32, &[]);
                self.connections.push(id, Class::Control, frame);
            }
        }
    }
}
