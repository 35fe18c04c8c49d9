//! Structured logs on standard error: for people in a terminal, JSON elsewhere.

use antiphon_server::config::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;

/// Starts logging. Called once.
pub(crate) fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
