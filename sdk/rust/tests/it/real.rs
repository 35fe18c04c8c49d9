//! A broker as it is shipped, in this process, on a data directory of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use antiphon_sdk::{Client, Config, DeviceId, Trust, UserId};
use antiphon_server::{
    Broker,
    auth::{Minter, TokenRequest},
    config::{Config as BrokerConfig, Overrides},
    identity::{Identity, development_tenant},
};
use tempfile::TempDir;

pub(crate) struct Real {
    minter: Minter,
    // Ends before its data directory does.
    broker: Broker,
    _data: TempDir,
}

impl Real {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let flags = Overrides {
            listen: Some("127.0.0.1:0".into()),
            admin_listen: Some("127.0.0.1:0".into()),
            data_dir: Some(data.path().join("data")),
            shards: Some(2),
            development: Some(true),
            ..Overrides::default()
        };
        let broker = Broker::start(BrokerConfig::load(None, [], flags, 2).unwrap()).unwrap();
        let identity = Identity::load_or_create(&broker.config().data_dir).unwrap();
        Self { minter: identity.minter().clone(), broker, _data: data }
    }

    /// A token of this second.
    pub(crate) fn token(&self, user: &str) -> String {
        let request = TokenRequest::user(development_tenant(), user.parse::<UserId>().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.minter.mint(&request, now.as_millis() as u64).unwrap()
    }

    pub(crate) fn config(&self, user: &str) -> Config {
        let trust = Trust::fingerprint(self.broker.fingerprint()).unwrap();
        Config::new(self.broker.address(), "localhost", trust, self.token(user))
    }

    pub(crate) async fn connect(&self, user: &str) -> Client {
        Client::connect(self.config(user)).await.unwrap()
    }

    pub(crate) async fn connect_device(&self, user: &str, device: &str) -> Client {
        let device = Some(device.parse::<DeviceId>().unwrap());
        Client::connect(Config { device, ..self.config(user) }).await.unwrap()
    }
}
