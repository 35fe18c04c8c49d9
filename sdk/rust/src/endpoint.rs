//! The UDP socket below one or many clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::Result;

/// A UDP socket that any number of clients share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Endpoint(quinn::Endpoint);

impl Endpoint {
    /// Binds a socket; port 0 = any. Must be called within a Tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        Ok(Self(quinn::Endpoint::client(address)?))
    }

    /// Binds any port, of the family that reaches `remote`.
    pub fn for_remote(remote: SocketAddr) -> Result<Self> {
        Self::bind(any_port(remote.is_ipv6()))
    }

    /// Moves to another port, as a phone does between networks; connections stay.
    pub fn rebind(&self) -> Result<()> {
        let mut address = self.0.local_addr()?;
        address.set_port(0);
        Ok(self.0.rebind(UdpSocket::bind(address)?)?)
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    pub(crate) fn quinn(&self) -> &quinn::Endpoint {
        &self.0
    }
}

fn any_port(ipv6: bool) -> SocketAddr {
    let ip = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}
