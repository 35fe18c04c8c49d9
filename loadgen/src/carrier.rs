//! What carries the sessions of a run.

use std::{error::Error, sync::Arc};

use antiphon_sdk::{Carrier, Config, WebSocketUrl};
use clap::{Args, ValueEnum};
use thiserror::Error;

use crate::{broker::Broker, gateway::Gateway, json_codec::JsonCodec};

/// What carries the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum CarrierChoice {
    /// QUIC.
    #[default]
    Quic,
    /// WebSocket with binary messages.
    WsBin,
    /// WebSocket with JSON.
    WsJson,
    /// A third each, so that native readers and browsers share conversations.
    Mixed,
}

/// How sessions reach the broker.
#[derive(Debug, Clone, Args)]
pub struct CarrierArgs {
    /// What carries the sessions.
    #[arg(long, value_enum, value_name = "CARRIER", default_value_t)]
    pub carrier: CarrierChoice,
    /// The gateway of a running broker. Default: that in the broker of this run.
    #[arg(long, value_name = "URL", requires = "broker")]
    gateway: Option<WebSocketUrl>,
}

/// Why sessions cannot be carried as was asked for.
#[derive(Debug, Error)]
pub enum CarrierError {
    /// A broker that runs already does not say where its gateway is.
    #[error("sessions on WebSocket need a gateway: say --gateway")]
    NoGateway,
    /// The broker's own.
    #[error("the broker said nothing of its gateway")]
    NotSaid,
    /// Only UDP sockets move.
    #[error("a WebSocket does not move to another port: leave --carrier out")]
    CannotMove,
    /// Nobody would notice.
    #[error("no session is on the gateway that is to be killed: choose a --carrier")]
    NobodyThere,
}

/// One of the ways of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Quic,
    Binary,
    Json,
}

/// The ways of a run, taken in turn.
#[derive(Debug, Clone, Default)]
pub struct Carriers {
    choice: CarrierChoice,
    gateway: Option<WebSocketUrl>,
}

impl CarrierArgs {
    /// The ways, with a gateway in a process of its own, in the broker, or where the user says.
    pub fn find(self, broker: Option<&Broker>, own: Option<&Gateway>) -> Result<Carriers, Box<dyn Error>> {
        let gateway = match (self.carrier, self.gateway, own, broker) {
            (CarrierChoice::Quic, ..) => None,
            (_, Some(url), ..) => Some(url),
            (_, None, Some(gateway), _) => Some(gateway.url().parse()?),
            (_, None, None, Some(broker)) => {
                Some(broker.ready().gateway.as_ref().ok_or(CarrierError::NotSaid)?.parse()?)
            }
            (_, None, None, None) => return Err(CarrierError::NoGateway.into()),
        };
        Ok(Carriers { choice: self.carrier, gateway })
    }
}

impl Carriers {
    fn way(&self, session: usize) -> Way {
        match self.choice {
            CarrierChoice::Quic => Way::Quic,
            CarrierChoice::WsBin => Way::Binary,
            CarrierChoice::WsJson => Way::Json,
            CarrierChoice::Mixed => [Way::Quic, Way::Binary, Way::Json][session % 3],
        }
    }

    /// Lets the session with this number go its way.
    pub(crate) fn apply(&self, session: usize, config: &mut Config) {
        let way = self.way(session);
        config.carrier = if way == Way::Quic { Carrier::Quic } else { Carrier::WebSocket };
        if way == Way::Json {
            config.codec = Some(Arc::new(JsonCodec));
        }
        config.fallback = self.gateway.clone();
    }

    /// Of so many sessions: those on QUIC, on binary and on JSON sockets.
    pub fn count(&self, sessions: usize) -> [u64; 3] {
        let mut counts = [0; 3];
        (0..sessions).for_each(|session| counts[self.way(session) as usize] += 1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_is_a_third_each_and_the_others_are_all_alike() {
        let count = |choice| Carriers { choice, gateway: None }.count(8);
        assert_eq!(count(CarrierChoice::Mixed), [3, 3, 2]);
        assert_eq!(count(CarrierChoice::Quic), [8, 0, 0]);
        assert_eq!(count(CarrierChoice::WsBin), [0, 8, 0]);
        assert_eq!(count(CarrierChoice::WsJson), [0, 0, 8]);
    }
}
