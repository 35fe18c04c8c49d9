//! A node listens for clients and for trunks, each on a socket of its own, with one QUIC endpoint behind both.

use std::{
    net::{IpAddr, SocketAddr},
    ops::{Index, IndexMut},
};

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;

/// A socket of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// For clients.
    Clients,
    /// For edges, which show a certificate.
    Trunks,
}

/// A UDP datagram as it was received.
#[derive(Debug)]
pub struct Datagram {
    /// By which socket.
    pub listener: Listener,
    /// From where.
    pub remote: SocketAddr,
    /// To which address of this machine, where the system says.
    pub local_ip: Option<IpAddr>,
    /// What the network says of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// What it holds.
    pub data: BytesMut,
}

/// Something that each socket has of its own.
#[derive(Debug, Default)]
pub(crate) struct PerListener<T> {
    clients: T,
    trunks: T,
}

impl<T> PerListener<T> {
    pub(crate) fn sum(&self, count: impl Fn(&T) -> usize) -> usize {
        count(&self.clients) + count(&self.trunks)
    }
}

impl<T> Index<Listener> for PerListener<T> {
    type Output = T;

    fn index(&self, listener: Listener) -> &T {
        match listener {
            Listener::Clients => &self.clients,
            Listener::Trunks => &self.trunks,
        }
    }
}

impl<T> IndexMut<Listener> for PerListener<T> {
    fn index_mut(&mut self, listener: Listener) -> &mut T {
        match listener {
            Listener::Clients => &mut self.clients,
            Listener::Trunks => &mut self.trunks,
        }
    }
}
