//! `<data>/running.json`: where the broker of a data directory listens, for commands on the same machine.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use antiphon_server::Broker;
use serde_json::{Value, json};

use crate::failure::Failure;

/// What a running broker says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) fingerprint: String,
}

fn path(data: &Path) -> PathBuf {
    data.join("running.json")
}

impl Running {
    /// Of a broker that clients reach at `address`.
    pub(crate) fn of(broker: &Broker, address: SocketAddr) -> Self {
        Self { address, admin: broker.admin_address(), fingerprint: broker.fingerprint().to_owned() }
    }

    /// Writes the file; the next start writes it again.
    pub(crate) fn write(&self, data: &Path) -> Result<(), Failure> {
        let text = json!({
            "address": self.address.to_string(),
            "admin": self.admin.to_string(),
            "fingerprint": self.fingerprint,
        });
        fs::write(path(data), format!("{text}\n")).map_err(|source| Failure::File { path: path(data), source })
    }

    /// Reads what the last broker on `data` has written.
    pub(crate) fn read(data: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path(data)).map_err(|_| Failure::NoData(data.to_owned()))?;
        Self::parse(&text).ok_or_else(|| Failure::NoData(data.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let field = |name| value.get(name)?.as_str();
        Some(Self {
            address: field("address")?.parse().ok()?,
            admin: field("admin")?.parse().ok()?,
            fingerprint: field("fingerprint")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_malformed_is_no_running_broker() {
        let good = r#"{"address":"127.0.0.1:7000","admin":"127.0.0.1:7001","fingerprint":"ab"}"#;
        assert_eq!(Running::parse(good).map(|running| running.address.port()), Some(7000));
        assert_eq!(Running::parse(&good.replace("7000", "x")), None);
        assert_eq!(Running::parse("{}"), None);
        assert_eq!(Running::parse(""), None);
    }
}
