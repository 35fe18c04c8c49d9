//! What a worker counts, for Prometheus. It counts in fields of its own and publishes them now and then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// A number that only the worker's own thread writes, so that counting is no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }

    pub(crate) fn one_less(&self) {
        self.0.store(self.0.load(Relaxed).saturating_sub(1), Relaxed);
    }

    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! worker_metrics {
    (
        counters { $($counter:ident = $counter_name:literal, $counter_help:literal;)+ }
        gauges { $($gauge:ident = $gauge_name:literal, $gauge_help:literal;)+ }
    ) => {
        /// The numbers of one worker.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(#[doc = $counter_help] pub(crate) $counter: Count,)+
            $(#[doc = $gauge_help] pub(crate) $gauge: Count,)+
        }

        /// The name of every series of a gateway, without labels.
        pub const METRICS: &[&str] = &[$($counter_name,)+ $($gauge_name,)+];

        impl Counters {
            /// Hands the numbers to the process's recorder, if there is one.
            pub(crate) fn publish(&self, worker: &str) {
                $(counter!($counter_name, "worker" => worker.to_owned()).absolute(self.$counter.get());)+
                $(gauge!($gauge_name, "worker" => worker.to_owned()).set(self.$gauge.get() as f64);)+
            }
        }

        pub(crate) fn describe() {
            $(describe_counter!($counter_name, $counter_help);)+
            $(describe_gauge!($gauge_name, $gauge_help);)+
        }
    };
}

worker_metrics! {
    counters {
        sockets_opened = "antiphon_gateway_sockets_opened_total", "WebSockets opened.";
        requests = "antiphon_gateway_requests_total", "HTTP requests.";
        frames_in = "antiphon_gateway_frames_in_total", "Frames of clients sent to the broker.";
        frames_from_broker = "antiphon_gateway_frames_from_broker_total", "Frames that came down the trunks, one for a whole group.";
        frames_out = "antiphon_gateway_frames_out_total", "Frames given to sessions, one for each reader.";
        messages_out = "antiphon_gateway_messages_out_total", "WebSocket messages written; one may hold several frames.";
        bytes_out = "antiphon_gateway_bytes_out_total", "Bytes of those messages.";
        json_rendered = "antiphon_gateway_json_rendered_total", "Frames of the broker written as JSON.";
        lagging = "antiphon_gateway_lagging_total", "Subscriptions ended because their socket did not take what came.";
        trunks_lost = "antiphon_gateway_trunks_lost_total", "Trunks that ended.";
        resumes = "antiphon_gateway_resumes_total", "Sessions asked to say HELLO again.";
    }
    gauges {
        sockets = "antiphon_gateway_sockets", "WebSockets open.";
        trunks = "antiphon_gateway_trunks", "Trunks connected.";
        http_sessions = "antiphon_gateway_http_sessions", "Sessions behind HTTP requests.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_fall() {
        let counters = Counters::default();
        counters.sockets.one_more();
        counters.sockets.one_more();
        counters.sockets.one_less();
        counters.bytes_out.add(7);
        counters.trunks.set(3);
        assert_eq!((counters.sockets.get(), counters.bytes_out.get(), counters.trunks.get()), (1, 7, 3));
        counters.publish("0");
        assert!(METRICS.contains(&"antiphon_gateway_sockets"));
    }
}
