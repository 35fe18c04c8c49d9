//! One trunk as its sessions see it: the channels that it carries, while it is connected.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_edge::Groups;
use antiphon_protocol::{FrameType, control::ChannelOpen, frames, trunk::Prefix};
use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use crate::{metrics::Counters, reader::Reader};

/// Frames of clients that wait for the trunk. Full: the sockets that have more are not read.
pub(super) const OUTGOING_MAX: usize = 4_096;

/// The channels of one trunk.
#[derive(Debug)]
pub(crate) struct Table {
    /// Only the worker's own thread comes here.
    inner: Mutex<Inner>,
    connected: Notify,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) counters: Arc<Counters>,
    pub(super) groups: Groups,
    pub(super) readers: BTreeMap<u32, Arc<dyn Reader>>,
    newest: u32,
    /// Into the present connection; `None` while there is none.
    outgoing: Option<mpsc::Sender<Bytes>>,
}

/// A session's place on a trunk. Dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct Channel {
    table: Arc<Table>,
    number: u32,
    outgoing: mpsc::Sender<Bytes>,
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Inner {
    fn new(counters: Arc<Counters>) -> Self {
        Self { counters, groups: Groups::default(), readers: BTreeMap::new(), newest: 0, outgoing: None }
    }
}

impl Table {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { inner: Mutex::new(Inner::new(counters)), connected: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half done where a thread could panic in here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection is there: channels count from 1 again.
    pub(super) fn connect(&self) -> mpsc::Receiver<Bytes> {
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let mut inner = self.lock();
        *inner = Inner { outgoing: Some(outgoing), ..Inner::new(Arc::clone(&inner.counters)) };
        drop(inner);
        self.connected.notify_waiters();
        frames
    }

    /// The connection is gone: so are its channels.
    pub(super) fn disconnect(&self) {
        let mut inner = self.lock();
        let nothing = Inner::new(Arc::clone(&inner.counters));
        let lost = std::mem::replace(&mut *inner, nothing);
        drop(inner);
        lost.counters.trunks_lost.one_more();
        for reader in lost.readers.into_values() {
            reader.lost();
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().outgoing.is_some()
    }

    /// Returns when the trunk is connected.
    pub(super) async fn connected(&self) {
        let connected = self.connected.notified();
        if !self.is_connected() {
            connected.await;
        }
    }

    /// A channel for a session, if the trunk is connected.
    pub(super) async fn open(self: &Arc<Self>, reader: Arc<dyn Reader>, remote: SocketAddr) -> Option<Channel> {
        let outgoing = self.lock().outgoing.clone()?;
        let open = frames::control(FrameType::ChannelOpen, 0, &ChannelOpen { remote: remote.to_string() });
        // Numbers have to rise on the stream, so the number is taken together with the place in the queue.
        let permit = outgoing.reserve().await.ok()?;
        let mut inner = self.lock();
        if inner.outgoing.as_ref().is_none_or(|present| !present.same_channel(&outgoing)) {
            return None;
        }
        inner.newest += 1;
        let number = inner.newest;
        permit.send(carry(number, &open));
        inner.readers.insert(number, reader);
        drop(inner);
        Some(Channel { table: Arc::clone(self), number, outgoing })
    }
}

impl Inner {
    /// Tells the broker that a channel lags. The queue may be full; then the channel is told when the broker finds out.
    pub(super) fn lag(&mut self, handle: u32, channel: u32) {
        self.counters.lagging.one_more();
        self.groups.lag(handle, channel);
        if let Some(outgoing) = self.outgoing.clone() {
            let frame = carry(channel, &frames::raw(FrameType::Lag, handle, &[]));
            if let Err(mpsc::error::TrySendError::Full(frame)) = outgoing.try_send(frame) {
                tokio::spawn(async move {
                    let _ = outgoing.send(frame).await;
                });
            }
        }
    }
}

impl Channel {
    /// Hands a client's frame to the trunk; waits while that has no room.
    pub(crate) async fn send(&self, frame: &[u8]) -> Result<(), Lost> {
        self.outgoing.send(carry(self.number, frame)).await.map_err(|_| Lost)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut inner = self.table.lock();
        let is_present = inner.outgoing.as_ref().is_some_and(|present| present.same_channel(&self.outgoing));
        if !is_present || inner.readers.remove(&self.number).is_none() {
            return;
        }
        inner.groups.close(self.number);
        let frame = carry(self.number, &frames::raw(FrameType::ChannelClose, 0, &[]));
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.outgoing.try_send(frame) {
            let outgoing = self.outgoing.clone();
            tokio::spawn(async move {
                let _ = outgoing.send(frame).await;
            });
        }
    }
}

fn carry(channel: u32, frame: &[u8]) -> Bytes {
    let prefix = Prefix::channel(channel).encode();
    let mut out = BytesMut::with_capacity(prefix.len() + frame.len());
    out.extend_from_slice(&prefix);
    out.extend_from_slice(frame);
    out.freeze()
}
