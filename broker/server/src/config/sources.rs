//! File, environment and flags -> one raw configuration -> [`Config`].

use std::{fs, path::Path};

use antiphon_core::Secret;

use super::{
    Config, ConfigError,
    raw::{Overrides, RawConfig},
    validate::{self, Found},
};

impl Config {
    /// Reads the file, if one is given, lays the `ANTIPHON_...` variables and then the flags over it, and validates.
    ///
    /// `cores` is the number of shards unless something else says otherwise.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Overrides,
        cores: usize,
    ) -> Result<Self, ConfigError> {
        let mut raw = file.map(read_file).transpose()?.unwrap_or_default();
        raw.overlay(from_environment(environment)?);
        raw.overlay(flags);
        validate::validate(raw, Found { file: file.is_some(), cores })
    }
}

fn read_file(path: &Path) -> Result<RawConfig, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let mut raw = toml::from_str::<RawConfig>(&text).map_err(|error| syntax_error(path, &text, &error))?;
    raw.anchor(path.parent().unwrap_or(Path::new("")));
    Ok(raw)
}

/// Turns TOML's drawing of the file into one line with the line's number and key.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count();
    let written = text.lines().nth(line).unwrap_or_default();
    let key = written.split_once('=').map(|(key, _)| key.trim().to_owned());
    let message = error.message().replace('\n', " ");
    ConfigError::Syntax { path: path.to_owned(), line: line + 1, key, message }
}

/// The variables that set keys. Others that begin alike are left alone: tools have their own, and orchestrators invent
/// some from the names of services.
fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Overrides, ConfigError> {
    let mut found = Overrides::default();
    for (name, value) in variables {
        let invalid = |expected| ConfigError::Invalid { key: name.clone(), expected, found: format!("{value:?}") };
        match name.as_str() {
            "ANTIPHON_LISTEN" => found.listen = Some(value),
            "ANTIPHON_ADMIN_LISTEN" => found.admin_listen = Some(value),
            "ANTIPHON_DATA_DIR" => found.data_dir = Some(value.into()),
            "ANTIPHON_SHARDS" => found.shards = Some(value.parse().map_err(|_| invalid("a whole number"))?),
            "ANTIPHON_DEVELOPMENT" => {
                found.development = Some(value.parse().map_err(|_| invalid("true or false"))?);
            }
            "ANTIPHON_STORE_CACHE_MIB" => {
                found.store_cache_mib = Some(value.parse().map_err(|_| invalid("a whole number"))?);
            }
            "ANTIPHON_ADVERTISE" => found.advertise = Some(value),
            "ANTIPHON_STORE_ENGINE" => found.store_engine = Some(value),
            "ANTIPHON_STORE_CONTACT_POINTS" => found.store_contact_points = Some(list(&value)),
            "ANTIPHON_STORE_KEYSPACE" => found.store_keyspace = Some(value),
            "ANTIPHON_STORE_USER" => found.store_user = Some(value),
            "ANTIPHON_STORE_PASSWORD" => found.store_password = Some(Secret(value)),
            "ANTIPHON_STORE_ACCEPT" => found.store_accept = Some(list(&value)),
            "ANTIPHON_STORE_REPLICATION_FACTOR" => {
                found.store_replication_factor = Some(value.parse().map_err(|_| invalid("a whole number"))?);
            }
            "ANTIPHON_TLS_CERTIFICATE" => found.tls_certificate = Some(value.into()),
            "ANTIPHON_TLS_KEY" => found.tls_key = Some(value.into()),
            "ANTIPHON_TRUNK_LISTEN" => found.trunk_listen = Some(value),
            "ANTIPHON_GATEWAY_LISTEN" => found.gateway_listen = Some(value),
            "ANTIPHON_PRESENCE_ENGINE" => found.presence_engine = Some(value),
            "ANTIPHON_PRESENCE_URLS" => {
                found.presence_urls = Some(value.split(',').map(|url| url.trim().to_owned()).collect());
            }
            "ANTIPHON_LOG_FORMAT" => found.log_format = Some(value),
            "ANTIPHON_LOG_FILTER" => found.log_filter = Some(value),
            "ANTIPHON_TEST_SEGMENT_BYTES" => {
                found.test_segment_bytes = Some(value.parse().map_err(|_| invalid("a whole number"))?);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}
