//! One QUIC connection: its control stream in, its outbox out, class by class.

use std::time::Instant;

use antiphon_core::{ConnectionId, Outbox};
use antiphon_protocol::{Class, ErrorCode, frames, trunk::Prefix};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamId, WriteError};

use crate::{listener::Listener, transport::STREAM_RECEIVE_WINDOW};

/// Bytes that one write packs together.
const PACK_BYTES: usize = 16 << 10;
/// Bytes taken from the control stream in one read.
const READ_BYTES_MAX: usize = 64 << 10;

/// Why the control stream is of no more use. The peer is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlStreamEnded;

/// A connection and its streams.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) quic: Connection,
    pub(crate) id: ConnectionId,
    /// The socket that its packets come and go by.
    pub(crate) listener: Listener,
    control: Option<StreamId>,
    /// The stream of each class that the broker opens.
    streams: [Option<StreamId>; Class::ALL.len()],
    /// Why it is about to be closed, and when at the latest.
    pub(crate) closing: Option<(ErrorCode, Instant)>,
    /// Whether it is in the list of connections to drive.
    pub(crate) is_listed: bool,
    /// Whether it may have packets that nobody has asked for since.
    pub(crate) is_sending: bool,
    /// Whether it is in the list of connections whose session does not take input now.
    pub(crate) is_paused: bool,
    /// The peer has sent bytes that wait until the session takes input.
    pub(crate) has_unread: bool,
    /// Whether the connection's receive window has its full size.
    has_full_window: bool,
}

impl Link {
    pub(crate) fn new(quic: Connection, id: ConnectionId, listener: Listener) -> Self {
        Self {
            quic,
            id,
            listener,
            control: None,
            streams: [None; Class::ALL.len()],
            closing: None,
            is_listed: false,
            is_sending: false,
            is_paused: false,
            has_unread: false,
            // A trunk's window is what it is from the beginning.
            has_full_window: listener == Listener::Trunks,
        }
    }

    /// Takes the control stream, the only one that a client may open.
    pub(crate) fn accept_control(&mut self) {
        if self.control.is_none() {
            self.control = self.quic.streams().accept(Dir::Bi);
            if let Some(control) = self.control {
                // A stream that has just been accepted can be given a priority.
                let _ = self.quic.send_stream(control).set_priority(priority(Class::Control));
                self.has_unread = true;
            }
        }
    }

    /// Whether bytes wait that may be read: from an edge not before its certificate was found good.
    pub(crate) fn may_read(&self) -> bool {
        let is_proven = self.listener == Listener::Clients || !self.quic.is_handshaking();
        self.has_unread && self.closing.is_none() && is_proven
    }

    /// The next bytes of the control stream, at most [`READ_BYTES_MAX`].
    pub(crate) fn read(&mut self) -> Result<Vec<Bytes>, ControlStreamEnded> {
        let mut out = Vec::new();
        let Some(control) = self.control else { return Ok(out) };
        let mut stream = self.quic.recv_stream(control);
        let mut chunks = stream.read(true).map_err(|_| ControlStreamEnded)?;
        let mut room = READ_BYTES_MAX;
        let ended = loop {
            match chunks.next(room) {
                Ok(Some(chunk)) => {
                    room -= chunk.bytes.len();
                    out.push(chunk.bytes);
                    if room == 0 {
                        break false;
                    }
                }
                Ok(None) => break true,
                Err(quinn_proto::ReadError::Blocked) => {
                    self.has_unread = false;
                    break false;
                }
                Err(quinn_proto::ReadError::Reset(_)) => break true,
            }
        };
        // Whether this frees credit for the peer is found out by `poll_transmit`.
        let _ = chunks.finalize();
        if ended && out.is_empty() { Err(ControlStreamEnded) } else { Ok(out) }
    }

    /// Moves as much of the outbox into QUIC as it takes. Returns whether anything was moved.
    pub(crate) fn write(&mut self, outbox: &mut Outbox) -> bool {
        let mut has_moved = false;
        for class in Class::ALL {
            while let Some(chunk) = next_chunk(outbox, class) {
                let Some(stream) = self.stream(class) else {
                    outbox.lane_mut(class).unpop(chunk);
                    break;
                };
                let mut chunks = [chunk];
                let result = self.quic.send_stream(stream).write_chunks(&mut chunks);
                let [rest] = chunks;
                match result {
                    // A rest is offered again at once: quinn-proto tells of room only after it has refused a write.
                    Ok(_) => {
                        has_moved = true;
                        if !rest.is_empty() {
                            outbox.lane_mut(class).unpop(rest);
                        }
                    }
                    // The peer does not want this class; what it does not read is not kept.
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {}
                    Err(WriteError::Blocked) => {
                        outbox.lane_mut(class).unpop(rest);
                        break;
                    }
                }
            }
        }
        has_moved
    }

    /// The stream of a class, opened when it is first needed.
    fn stream(&mut self, class: Class) -> Option<StreamId> {
        if class == Class::Control {
            return self.control;
        }
        if let Some(stream) = self.streams[class as usize] {
            return Some(stream);
        }
        let stream = self.quic.streams().open(Dir::Uni)?;
        let mut send = self.quic.send_stream(stream);
        // A stream that has just been opened takes a priority and these few bytes.
        let _ = send.set_priority(priority(class));
        let prefix = match self.listener {
            Listener::Clients => Bytes::new(),
            Listener::Trunks => Bytes::copy_from_slice(&Prefix::channel(0).encode()),
        };
        let _ = send.write_chunks(&mut [prefix, frames::open(class)]);
        self.streams[class as usize] = Some(stream);
        Some(stream)
    }

    /// Ends the control stream, so that its last frame can be known to have arrived.
    pub(crate) fn finish_control(&mut self) {
        if let Some(control) = self.control {
            let _ = self.quic.send_stream(control).finish();
        }
    }

    /// Lets an authenticated peer send further ahead.
    pub(crate) fn grow_window(&mut self) {
        if !self.has_full_window {
            self.has_full_window = true;
            self.quic.set_receive_window(STREAM_RECEIVE_WINDOW.into());
        }
    }

    /// Whether this is the stream that answers travel on.
    pub(crate) fn is_control(&self, stream: StreamId) -> bool {
        self.control == Some(stream)
    }
}

/// The next bytes of a class: one shared frame, or several small ones packed together.
fn next_chunk(outbox: &mut Outbox, class: Class) -> Option<Bytes> {
    let lane = outbox.lane_mut(class);
    let first = lane.pop()?;
    // A page is large already, and counting pages needs them apart.
    if class == Class::Backfill || lane.is_empty() || first.len() >= PACK_BYTES {
        return Some(first);
    }
    let mut packed = BytesMut::with_capacity((first.len() + lane.bytes()).min(PACK_BYTES));
    packed.extend_from_slice(&first);
    while let Some(frame) = lane.pop() {
        if packed.len() + frame.len() > PACK_BYTES {
            lane.unpop(frame);
            break;
        }
        packed.extend_from_slice(&frame);
    }
    Some(packed.freeze())
}

/// QUIC sends higher numbers first.
fn priority(class: Class) -> i32 {
    Class::Backfill as i32 - class as i32
}
