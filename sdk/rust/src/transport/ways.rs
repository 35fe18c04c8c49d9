//! Which way to the broker: QUIC, or a WebSocket where UDP does not get through.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{Cause, Link, form::Form, quic, websocket};
use crate::{Carrier, Config, Endpoint, Error, Result, tls};

/// A connection that has stood for so long has led to a session.
const LED_TO_SOMETHING: Duration = Duration::from_secs(5);

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
    /// Since when the last connection has stood; none if the last attempt led to nothing.
    stands_since: Option<Instant>,
    /// What carried the last connection that stood: UDP that did not get through a moment ago is not tried first.
    last: Option<Carrier>,
}

impl Ways {
    pub(crate) fn new(config: &Config, endpoint: &Endpoint) -> Result<Self> {
        let quic = quic::Way {
            endpoint: endpoint.clone(),
            tls: tls::quic_config(&config.trust)?,
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
            stands_since: None,
            quic: (config.carrier != Carrier::WebSocket).then_some(quic),
            websocket,
            fallback_after: config.fallback_after,
            retry_quic_every: config.retry_quic_every,
            last: None,
        })
    }

    /// Makes a connection, by the best way that works. A broker that stands by answers, too, and lets nobody in: what has
    /// stood for a moment only has led to nothing.
    pub(super) fn connect(&mut self) -> impl Future<Output = std::result::Result<Link, Cause>> + Send + 'static {
        let has_led_to_something = self.stands_since.take().is_some_and(|since| since.elapsed() >= LED_TO_SOMETHING);
        let next = self.tried.map_or(0, |tried| (tried + usize::from(!has_led_to_something)) % self.addresses.len());
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
        self.stands_since = carrier.map(|_| Instant::now());
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
