//! What a broker says when it is ready, and where it listens when it is started again.

use std::{net::SocketAddr, path::PathBuf};

use crate::broker::BrokerError;

/// What a broker says about itself when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where clients connect (QUIC).
    pub address: SocketAddr,
    /// Where its admin listener answers HTTP.
    pub admin: SocketAddr,
    /// URL of its gateway, if it has one.
    pub gateway: Option<String>,
    /// Where trunks connect (QUIC), if it says so.
    pub trunk: Option<SocketAddr>,
    /// Of its certificate, `sha256:<hex>`.
    pub fingerprint: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Shards it runs.
    pub shards: u32,
}

impl Ready {
    /// From lines of `name: value`.
    pub(crate) fn parse(lines: &[String]) -> Result<Self, BrokerError> {
        let said = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let fact = |name: &'static str| said(name).ok_or(BrokerError::Fact(name));
        let admin = fact("admin")?;
        let admin = admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/');
        Ok(Self {
            address: fact("address")?.parse().map_err(|_| BrokerError::Fact("address"))?,
            admin: admin.parse().map_err(|_| BrokerError::Fact("admin"))?,
            gateway: said("gateway").map(str::to_owned),
            trunk: said("trunk").map(str::parse).transpose().map_err(|_| BrokerError::Fact("trunk"))?,
            fingerprint: fact("fingerprint")?.to_owned(),
            data: fact("data")?.into(),
            shards: fact("shards")?.parse().map_err(|_| BrokerError::Fact("shards"))?,
        })
    }
}

/// Where a broker is to listen.
pub(crate) struct Listen {
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) gateway: SocketAddr,
    pub(crate) trunk: SocketAddr,
}

impl Default for Listen {
    /// Anywhere on loopback.
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { clients: any, admin: any, gateway: any, trunk: any }
    }
}

impl Listen {
    /// Where it did before, as far as it said so.
    pub(crate) fn again(ready: &Ready) -> Self {
        let any = Self::default();
        let gateway = ready.gateway.as_deref().and_then(|url| url.strip_prefix("http://")?.parse().ok());
        Self {
            clients: ready.address,
            admin: ready.admin,
            gateway: gateway.unwrap_or(any.gateway),
            trunk: ready.trunk.unwrap_or(any.trunk),
        }
    }
}
