//! A broker as it is shipped, in this process, on a data directory of its own.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

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
    broker: Option<Broker>,
    data: TempDir,
}

impl Real {
    pub(crate) fn start() -> Self {
        Self::with(Overrides::default())
    }

    /// Shares presence with others on the same Redis.
    pub(crate) fn on_redis(url: &str) -> Self {
        Self::with(Overrides {
            presence_engine: Some("redis".into()),
            presence_urls: Some(vec![url.to_owned()]),
            ..Overrides::default()
        })
    }

    fn with(flags: Overrides) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let broker = start(&data, any, any, flags);
        let identity = Identity::load_or_create(&broker.config().data_dir).unwrap();
        Self { minter: identity.minter().clone(), broker: Some(broker), data }
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// Ends the broker and starts it again on the same data, at the same addresses.
    pub(crate) fn restart(&mut self) {
        let (address, trunk) = (self.broker().address(), self.broker().trunk_address());
        self.broker = None;
        self.broker = Some(start(&self.data, address, trunk, Overrides::default()));
    }

    /// A token of this second.
    pub(crate) fn token(&self, user: &str) -> String {
        let request = TokenRequest::user(development_tenant(), user.parse::<UserId>().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.minter.mint(&request, now.as_millis() as u64).unwrap()
    }

    pub(crate) fn config(&self, user: &str) -> Config {
        let trust = Trust::fingerprint(self.broker().fingerprint()).unwrap();
        Config::new(self.broker().address(), "localhost", trust, self.token(user))
    }

    pub(crate) async fn connect(&self, user: &str) -> Client {
        Client::connect(self.config(user)).await.unwrap()
    }

    pub(crate) async fn connect_device(&self, user: &str, device: &str) -> Client {
        let device = Some(device.parse::<DeviceId>().unwrap());
        Client::connect(Config { device, ..self.config(user) }).await.unwrap()
    }
}

fn start(data: &TempDir, listen: SocketAddr, trunk: SocketAddr, flags: Overrides) -> Broker {
    let flags = Overrides {
        listen: Some(listen.to_string()),
        trunk_listen: Some(trunk.to_string()),
        admin_listen: Some("127.0.0.1:0".into()),
        data_dir: Some(data.path().join("data")),
        shards: Some(2),
        development: Some(true),
        ..flags
    };
    Broker::start(BrokerConfig::load(None, [], flags, 2).unwrap()).unwrap()
}
