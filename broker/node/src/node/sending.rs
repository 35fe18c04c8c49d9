//! Packets out: what waits for a connection is written to its streams when its packets are asked for, so that all that is
//! done for it comes together and its state, some kilobytes, is fetched into the processor's caches once.

use std::time::Instant;

use antiphon_core::ConnectionId;
use quinn_proto::Transmit;

use super::Node;
use crate::listener::Listener;

/// The connections that may have packets for a socket.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Whose packets are being taken.
    current: Option<usize>,
    /// Those that an earlier turn did not get to, which come first.
    overdue: Vec<usize>,
    /// Those of this turn.
    listed: Vec<usize>,
}

impl Sending {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.overdue.append(&mut self.listed);
    }

    pub(super) fn push(&mut self, slot: usize) {
        self.listed.push(slot);
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.current.is_some()) + self.overdue.len() + self.listed.len()
    }
}

impl Node {
    /// The next packet to send by the socket of `listener`, at most `datagrams_max` of one size to one peer; its bytes are
    /// appended to `buffer`, which the caller clears between calls.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        listener: Listener,
        datagrams_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.responses[listener].pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(transmit);
        }
        loop {
            let slot = match self.sending[listener].current {
                Some(slot) => slot,
                None => self.next_to_send(listener)?,
            };
            self.sending[listener].current = None;
            let Some(link) = self.links[slot].as_mut() else { continue };
            if let Some(transmit) = link.quic.poll_transmit(now, datagrams_max, buffer) {
                self.sending[listener].current = Some(slot);
                return Some(transmit);
            }
            link.is_sending = false;
            self.note_timer(slot);
            self.pass_endpoint_events(now, slot);
        }
    }

    fn next_to_send(&mut self, listener: Listener) -> Option<usize> {
        while let Some(slot) = self.sending[listener].overdue.pop() {
            if self.is_sending(slot) {
                return Some(slot);
            }
        }
        while let Some(connection) = self.shard.poll_writable() {
            match self.write_outbox(connection) {
                Some((slot, by)) if by == listener => return Some(slot),
                Some((slot, _)) => self.list_sending(slot),
                None => {}
            }
        }
        while let Some(slot) = self.sending[listener].listed.pop() {
            if self.is_sending(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Whether the connection was listed since its packets were taken last.
    fn is_sending(&self, slot: usize) -> bool {
        self.links[slot].as_ref().is_some_and(|link| link.is_sending)
    }

    /// Notes that the connection may have packets.
    pub(super) fn list_sending(&mut self, slot: usize) {
        if let Some(link) = self.links[slot].as_mut()
            && !std::mem::replace(&mut link.is_sending, true)
        {
            self.sending[link.listener].push(slot);
        }
    }

    fn write_outbox(&mut self, connection: ConnectionId) -> Option<(usize, Listener)> {
        let slot = connection.slot as usize;
        let link = self.links.get(slot)?.as_ref().filter(|link| link.id == connection)?;
        let listener = link.listener;
        self.write(slot).then_some((slot, listener))
    }

    /// Moves what waits for the connection into its streams, as far as they take it. Whether anything was moved.
    pub(super) fn write(&mut self, slot: usize) -> bool {
        let Some(link) = self.links[slot].as_mut() else { return false };
        let connection = link.id;
        let Some(outbox) = self.shard.outbox_mut(connection) else { return false };
        let was_moved = link.write(outbox);
        if was_moved {
            if link.closing.is_some() && outbox.is_empty() {
                link.finish_control();
            }
            if self.shard.awaits_room(connection) {
                self.roomy.push(connection);
            }
        }
        was_moved
    }

    fn note_timer(&mut self, slot: usize) {
        let Some(link) = self.links[slot].as_mut() else { return };
        let closing = link.closing.filter(|_| !link.quic.is_closed()).map(|(_, at)| at);
        let at = [link.quic.poll_timeout(), closing].into_iter().flatten().min();
        self.timers.set(slot, at);
    }
}
