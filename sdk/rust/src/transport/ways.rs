//! Which way to the broker: QUIC, or a WebSocket where UDP does not get through.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Cause, Link, form::Form, quic, websocket};
use crate::{Carrier, Config, Endpoint, Error, Result, tls};

/// The ways that a configuration allows.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    quic: Option<quic::Way>,
    websocket: Option<websocket::Way>,
    fallback_after: Duration,
    retry_quic_every: Duration,
    /// Where brokers listen; the way by QUIC leads to one of them.
    addresses: Vec<SocketAddr>,
    /// Which of them was tried last.
    tried: Option<usize>,
    /// Whether the last attempt led to a session.
    has_led_to_session: bool,
    /// What carried the last connection that stood: UDP that did not get through a moment ago is not tried first.
    last: Option<Carrier>,
}

impl Ways {
    pub(crate) fn new(config: &Config, endpoint: &Endpoint) -> Result<Self> {
        #[cfg(feature = "test-hooks")]
        let given = config.quic.clone();
        #[cfg(not(feature = "test-hooks"))]
        let given: Option<quinn::ClientConfig> = None;
        let quic = quic::Way {
            endpoint: endpoint.clone(),
            tls: given.map_or_else(|| tls::quic_config(&config.trust, |_| {}), Ok)?,
            address: config.address,
            server_name: config.server_name.clone(),
        };
        #[cfg(feature = "test-hooks")]
        let form = config.codec.clone().map_or(Form::Binary, Form::Text);
        #[cfg(not(feature = "test-hooks"))]
        let form = Form::Binary;
        let websocket = match &config.fallback {
            Some(url) if config.carrier != Carrier::Quic => {
                Some(websocket::Way { url: url.clone(), tls: tls::websocket_config(&config.trust)?, form })
            }
            _ => None,
        };
        if config.carrier == Carrier::WebSocket && websocket.is_none() {
            return Err(Error::NoFallback);
        }
        let addresses = std::iter::once(config.address).chain(config.alternatives.iter().copied()).collect();
        Ok(Self {
            addresses,
            tried: None,
            has_led_to_session: false,
            quic: (config.carrier != Carrier::WebSocket).then_some(quic),
            websocket,
            fallback_after: config.fallback_after,
            retry_quic_every: config.retry_quic_every,
            last: None,
        })
    }

    /// Makes a connection, by the best way that works. A broker that stands by answers, too, and lets nobody in: only where
    /// a session stood is the same broker tried again first.
    pub(super) fn connect(&mut self) -> impl Future<Output = std::result::Result<Link, Cause>> + Send + 'static {
        let is_next_ones_turn = !std::mem::take(&mut self.has_led_to_session);
        let next = self.tried.map_or(0, |tried| (tried + usize::from(is_next_ones_turn)) % self.addresses.len());
        self.tried = Some(next);
        if let Some(quic) = &mut self.quic {
            quic.address = self.addresses[next];
        }
        let Self { quic, websocket, fallback_after, last, .. } = self.clone();
        async move {
            match (quic, websocket) {
                (Some(quic), None) => quic.connect().await,
                (Some(quic), Some(websocket)) if last != Some(Carrier::WebSocket) => {
                    let first = match timeout(fallback_after, quic.connect()).await {
                        Ok(Ok(link)) => return Ok(link),
                        // The broker has answered; another way leads to the same answer.
                        Ok(Err(cause)) if cause.close_code.is_some() => return Err(cause),
                        Ok(Err(cause)) => cause.text,
                        Err(_) => "no answer".to_owned(),
                    };
                    let both = |Cause { text, close_code }| Cause {
                        text: format!("by QUIC: {first}; by WebSocket: {text}"),
                        close_code,
                    };
                    websocket.connect().await.map_err(both)
                }
                (_, Some(websocket)) => websocket.connect().await,
                // Invariant: every carrier has a way.
                (None, None) => Err("there is no way to the broker".into()),
            }
        }
    }

    /// Notes which way has worked, or that none has.
    pub(super) fn used(&mut self, carrier: Option<Carrier>) {
        self.last = carrier;
    }

    /// Notes that the broker has let the client in.
    pub(super) fn session_stands(&mut self) {
        self.has_led_to_session = true;
    }

    /// Looks for a better way than `carrier` until there is one; `None` if there is none to look for.
    pub(super) fn seek(&self, carrier: Carrier) -> Option<impl Future<Output = Link> + Send + 'static> {
        let quic = self.quic.clone().filter(|_| carrier == Carrier::WebSocket)?;
        let (patience, interval) = (self.fallback_after, self.retry_quic_every);
        Some(async move {
            loop {
                sleep(interval).await;
                if let Ok(Ok(link)) = timeout(patience, quic.clone().connect()).await {
                    return link;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;

    #[tokio::test]
    async fn a_broker_that_let_nobody_in_is_not_tried_twice_however_long_the_wait() {
        let addresses: Vec<SocketAddr> = [1, 2, 3].map(|port| ([127, 0, 0, 1], port).into()).into();
        let mut config = Config::new(addresses[0], "localhost", Trust::Fingerprint([0; 32]), "token");
        config.alternatives = addresses[1..].to_vec();
        let endpoint = Endpoint::for_remote(addresses[0]).unwrap();
        let mut ways = Ways::new(&config, &endpoint).unwrap();
        // Whether there was a connection, and whether it led to a session.
        let attempts = [(false, false), (true, false), (true, true), (false, false), (true, true), (true, true)];
        let mut tried = Vec::new();
        for (is_connected, has_session) in attempts {
            drop(ways.connect());
            tried.push(ways.quic.as_ref().unwrap().address);
            ways.used(is_connected.then_some(Carrier::Quic));
            if has_session {
                ways.session_stands();
            }
        }
        let expected = [0, 1, 2, 2, 0, 0].map(|at: usize| addresses[at]);
        assert_eq!(tried, expected);
    }
}
