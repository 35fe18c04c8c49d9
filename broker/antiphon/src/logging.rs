//! Structured logs on standard error: for people in a terminal, JSON elsewhere.

use antiphon_server::config::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;

/// Starts logging. Called once.
pub(crate) fn start(settings: &LogSettings) {
    // The store says what the errors of its driver mean; who wants those, too, names their target in the filter.
    let filter = EnvFilter::try_new(format!("scylla=off,{}", settings.filter));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("scylla=off,info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
