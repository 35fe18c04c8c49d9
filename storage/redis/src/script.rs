//! Scripts, called by hash.

use fred::{interfaces::LuaInterface, prelude::*, types::Value, util::sha1_hash};

/// A script and its name in the cache of Redis.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// States, asks, lets run out.
    pub(crate) fn turn() -> Self {
        Self::new(include_str!("lua/turn.lua"))
    }

    /// Rate limits.
    pub(crate) fn take() -> Self {
        Self::new(include_str!("lua/take.lua"))
    }

    fn new(text: &'static str) -> Self {
        Self { text, hash: sha1_hash(text) }
    }

    /// Calls it on `key`. A Redis that does not know it (any more) is given the text, and knows it then.
    pub(crate) async fn call(&self, client: &Client, key: String, arguments: Vec<Value>) -> Result<Value, Error> {
        match client.evalsha(self.hash.as_str(), key.as_str(), arguments.clone()).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => client.eval(self.text, key, arguments).await,
            result => result,
        }
    }
}
