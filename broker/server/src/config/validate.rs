//! Raw values -> a [`Config`] that needs no further checks.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use antiphon_core::claims::{Abilities, Ability, ActorKind, Grant, GrantPattern};
use antiphon_protocol::TenantId;

use super::{
    Config, ConfigError, GatewaySettings, IssuerSettings, KeyFile, KeySource, Limits, LogFormat, LogSettings, TlsFiles,
    TrunkSettings, presence,
    raw::{
        RawClaims, RawConfig, RawGateway, RawGrant, RawIssuer, RawKey, RawLimits, RawLog, RawPath, RawTls, RawTrunk,
    },
    store,
};
use crate::auth::{Algorithm, ClaimMapping, ClaimPath, IssuerPolicy, TenantSource};

const SHARDS_MAX: u16 = 64;
const LISTEN_PORT: u16 = 7000;
const ADMIN_PORT: u16 = 7001;
const TRUNK_PORT: u16 = 7002;
const GATEWAY_PORT: u16 = 7080;

/// What validation has to know about where the values come from.
pub(super) struct Found {
    pub(super) file: bool,
    pub(super) cores: usize,
}

pub(super) fn validate(raw: RawConfig, found: Found) -> Result<Config, ConfigError> {
    let listen = address("listen", raw.listen, LISTEN_PORT)?;
    let admin_listen = address("admin_listen", raw.admin_listen, ADMIN_PORT)?;
    let trunk = trunk(raw.trunk, listen)?;
    let gateway = gateway(raw.gateway, listen)?;
    let issuers: Vec<_> =
        raw.issuers.into_iter().enumerate().map(|(at, raw)| issuer(at, raw)).collect::<Result<_, _>>()?;
    // Without being asked, development mode is only for someone who has configured nothing and whom nobody can reach.
    let nothing_configured = !found.file && issuers.is_empty();
    let development = raw.development.unwrap_or(nothing_configured && is_loopback(listen) && is_loopback(admin_listen));
    let config = Config {
        listen,
        admin_listen,
        data_dir: raw.data_dir.unwrap_or_else(|| PathBuf::from("antiphon-data")),
        shards: shards(raw.shards, found.cores)?,
        development,
        tls: tls(raw.tls)?,
        trunk,
        gateway,
        issuers,
        limits: limits(&raw.limits)?,
        store: store::store(raw.store)?,
        advertise: advertise(raw.advertise)?,
        presence: presence::validate(raw.presence)?,
        log: log(raw.log)?,
        test_segment_bytes: raw.test_segment_bytes.map(test_segment_bytes).transpose()?,
    };
    check_exposure(&config)?;
    Ok(config)
}

/// The rules between addresses, issuers, certificate and development mode.
fn check_exposure(config: &Config) -> Result<(), ConfigError> {
    let conflict = |key: &str, rule| Err(ConfigError::Conflict { key: key.to_owned(), rule });
    if config.development && !is_loopback(config.listen) {
        return conflict("development", "works on loopback only: set `listen` to a loopback address or turn it off");
    }
    if config.development && !is_loopback(config.admin_listen) {
        return conflict("development", "hands out tokens: set `admin_listen` to a loopback address or turn it off");
    }
    if !config.development && config.issuers.is_empty() {
        return conflict("issuers", "nobody could log in: add [[issuers]], or set `development = true` on loopback");
    }
    let is_exposed = !is_loopback(config.listen) || !is_loopback(config.trunk.listen);
    if is_exposed && config.tls.is_none() {
        return conflict("tls", "listening beyond loopback needs `tls.certificate` and `tls.key`");
    }
    if config.development && config.gateway.as_ref().is_some_and(|gateway| !is_loopback(gateway.listen)) {
        return conflict(
            "development",
            "works on loopback only: set `gateway.listen` to a loopback address or turn it off",
        );
    }
    Ok(())
}

/// Whether only this machine can reach the address; a wildcard is reachable from everywhere.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

pub(super) fn invalid(key: impl Into<String>, expected: &'static str, found: impl ToString) -> ConfigError {
    ConfigError::Invalid { key: key.into(), expected, found: found.to_string() }
}

fn address(key: &str, raw: Option<String>, port: u16) -> Result<SocketAddr, ConfigError> {
    let Some(text) = raw else { return Ok((Ipv4Addr::LOCALHOST, port).into()) };
    text.parse().map_err(|_| invalid(key, "an address and port such as 127.0.0.1:7000 or [::]:7000", quoted(&text)))
}

/// The port of a listener that nobody configured: a fixed one, unless clients have any that is free, too.
fn beside(listen: SocketAddr, port: u16) -> u16 {
    if listen.port() == 0 { 0 } else { port }
}

fn trunk(raw: RawTrunk, listen: SocketAddr) -> Result<TrunkSettings, ConfigError> {
    const EXPECTED: &str = "sha256: and 64 hexadecimal digits";
    let client = |(at, text): (usize, String)| {
        let hex = text.strip_prefix("sha256:").map(str::to_ascii_lowercase);
        let is_hex = |hex: &String| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.filter(is_hex).ok_or_else(|| invalid(format!("trunk.clients[{at}]"), EXPECTED, quoted(&text)))
    };
    let clients = raw.clients.unwrap_or_default().into_iter().enumerate().map(client).collect::<Result<_, _>>()?;
    Ok(TrunkSettings { listen: address("trunk.listen", raw.listen, beside(listen, TRUNK_PORT))?, clients })
}

fn gateway(raw: RawGateway, listen: SocketAddr) -> Result<Option<GatewaySettings>, ConfigError> {
    let address = address("gateway.listen", raw.listen, beside(listen, GATEWAY_PORT))?;
    let origins = raw.origins.unwrap_or_default();
    let is_origin = |origin: &String| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '?', '#']))
    };
    if let Some((at, origin)) = origins.iter().enumerate().find(|(_, origin)| !is_origin(origin)) {
        let expected = "scheme and host, such as https://chat.example";
        return Err(invalid(format!("gateway.origins[{at}]"), expected, quoted(origin)));
    }
    Ok(raw.enabled.unwrap_or(true).then_some(GatewaySettings { listen: address, origins }))
}

fn shards(raw: Option<i64>, cores: usize) -> Result<NonZeroU16, ConfigError> {
    let count = match raw {
        Some(count) => u16::try_from(count).ok().filter(|count| *count <= SHARDS_MAX).and_then(NonZeroU16::new),
        None => NonZeroU16::new(u16::try_from(cores).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX)),
    };
    count.ok_or_else(|| invalid("shards", "1 to 64", raw.unwrap_or_default()))
}

fn tls(raw: RawTls) -> Result<Option<TlsFiles>, ConfigError> {
    let missing = |key: &str| ConfigError::Missing { key: key.to_owned(), expected: "certificate and key together" };
    match (raw.certificate, raw.key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing("tls.certificate")),
        (Some(_), None) => Err(missing("tls.key")),
    }
}

fn limits(raw: &RawLimits) -> Result<Limits, ConfigError> {
    let idle = within("limits.idle_timeout_seconds", raw.idle_timeout_seconds, 30, 10..=600, "10 to 600 seconds")?;
    let connections = within(
        "limits.connections_per_shard_max",
        raw.connections_per_shard_max,
        20_000,
        1..=1_000_000,
        "1 to 1000000 connections",
    )?;
    Ok(Limits { idle_timeout: Duration::from_secs(idle.into()), connections_per_shard_max: connections })
}

/// Handed to clients as it is, so it may name a host.
fn advertise(raw: Option<String>) -> Result<Option<String>, ConfigError> {
    let is_place = |text: &String| {
        let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
        parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match raw {
        Some(text) if !is_place(&text) => {
            Err(invalid("advertise", "host and port such as chat1.example:7000", quoted(&text)))
        }
        other => Ok(other),
    }
}

/// From what takes the longest write of a shard to the usual length.
fn test_segment_bytes(raw: i64) -> Result<u32, ConfigError> {
    const EXPECTED: &str = "a multiple of 4096 from 1048576 to 33554432";
    let bytes = within("ANTIPHON_TEST_SEGMENT_BYTES", Some(raw), 0, 1 << 20..=32 << 20, EXPECTED)?;
    if bytes.is_multiple_of(4096) { Ok(bytes) } else { Err(invalid("ANTIPHON_TEST_SEGMENT_BYTES", EXPECTED, raw)) }
}

pub(super) fn within(
    key: &str,
    raw: Option<i64>,
    default: u32,
    range: RangeInclusive<u32>,
    expected: &'static str,
) -> Result<u32, ConfigError> {
    let Some(number) = raw else { return Ok(default) };
    let inside = u32::try_from(number).ok().filter(|number| range.contains(number));
    inside.ok_or_else(|| invalid(key, expected, number))
}

fn log(raw: RawLog) -> Result<LogSettings, ConfigError> {
    let format = match raw.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(invalid("log.format", "\"text\" or \"json\"", quoted(other))),
    };
    Ok(LogSettings { format, filter: raw.filter.unwrap_or_else(|| "info".to_owned()) })
}

fn issuer(at: usize, raw: RawIssuer) -> Result<IssuerSettings, ConfigError> {
    let key = |name: &str| format!("issuers[{at}].{name}");
    let missing = |name, expected| ConfigError::Missing { key: key(name), expected };
    let issuer = raw.issuer.filter(|name| !name.is_empty());
    let issuer = issuer.ok_or_else(|| missing("issuer", "the exact `iss` of its tokens"))?;
    let audiences = raw.audiences.unwrap_or_else(|| vec!["antiphon".to_owned()]);
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(invalid(key("audiences"), "one or more non-empty texts", quoted(&audiences)));
    }
    let tenants = raw.tenants.filter(|tenants| !tenants.is_empty());
    let tenants = tenants.ok_or_else(|| missing("tenants", "the tenants that this issuer may sign for"))?;
    let tenants: Vec<_> = tenants.iter().map(|id| tenant(key("tenants"), id)).collect::<Result<_, _>>()?;
    let leeway = within(&key("leeway_seconds"), raw.leeway_seconds, 30, 0..=30, "0 to 30 seconds")?;
    let mapping = raw.claims.map(|claims| mapping(&key("claims"), claims, &tenants)).transpose()?;
    let keys = key_source(at, raw.keys, raw.key_set)?;
    // Invariant: `within` has just bounded the leeway by 30.
    let policy = IssuerPolicy { issuer, audiences, tenants, leeway_seconds: leeway as u8, mapping };
    Ok(IssuerSettings { policy, keys })
}

fn key_source(at: usize, keys: Vec<RawKey>, key_set: Option<PathBuf>) -> Result<KeySource, ConfigError> {
    let field = format!("issuers[{at}].keys");
    match (keys.is_empty(), key_set) {
        (true, Some(path)) => Ok(KeySource::KeySet(path)),
        (false, Some(_)) => Err(ConfigError::Conflict { key: field, rule: "give either `keys` or `key_set`" }),
        (true, None) => Err(ConfigError::Missing { key: field, expected: "[[issuers.keys]] or `key_set`" }),
        (false, None) => {
            let files = keys.into_iter().enumerate().map(|(nth, key)| key_file(&format!("{field}[{nth}]"), key));
            files.collect::<Result<_, _>>().map(KeySource::Files)
        }
    }
}

fn key_file(key: &str, raw: RawKey) -> Result<KeyFile, ConfigError> {
    let missing = |name: &str, expected| ConfigError::Missing { key: format!("{key}.{name}"), expected };
    let algorithm = raw.algorithm.ok_or_else(|| missing("algorithm", "EdDSA, ES256, RS256 or HS256"))?;
    let algorithm: Algorithm = algorithm
        .parse()
        .map_err(|_| invalid(format!("{key}.algorithm"), "EdDSA, ES256, RS256 or HS256", quoted(&algorithm)))?;
    let file = raw.file.ok_or_else(|| missing("file", "the file that holds the key"))?;
    Ok(KeyFile { id: raw.id, algorithm, file })
}

fn mapping(key: &str, raw: RawClaims, tenants: &[TenantId]) -> Result<ClaimMapping, ConfigError> {
    let path = |name: &str, raw: Option<RawPath>| raw.map(|raw| claim_path(format!("{key}.{name}"), raw)).transpose();
    let tenant_key = format!("{key}.tenant");
    let source = match (raw.tenant, path("tenant_claim", raw.tenant_claim)?) {
        (Some(id), None) => TenantSource::Fixed(tenant(tenant_key.clone(), &id)?),
        (None, Some(path)) => TenantSource::Claim(path),
        _ => {
            return Err(ConfigError::Conflict { key: tenant_key, rule: "give either `tenant` or `tenant_claim`" });
        }
    };
    if matches!(&source, TenantSource::Fixed(tenant) if !tenants.contains(tenant)) {
        return Err(ConfigError::Conflict { key: tenant_key, rule: "must be one of the issuer's `tenants`" });
    }
    let kind = match raw.kind.as_deref() {
        None => ActorKind::User,
        Some(word) => ActorKind::from_word(word)
            .ok_or_else(|| invalid(format!("{key}.kind"), "user, service, worker or edge", quoted(word)))?,
    };
    let grants = raw.grants.into_iter().enumerate().map(|(nth, raw)| grant(&format!("{key}.grants[{nth}]"), raw));
    Ok(ClaimMapping {
        tenant: source,
        user: path("user_claim", raw.user_claim)?.unwrap_or_else(|| ClaimPath::top("sub")),
        token_id: path("token_id_claim", raw.token_id_claim)?.unwrap_or_else(|| ClaimPath::top("jti")),
        device: path("device_claim", raw.device_claim)?,
        name: path("name_claim", raw.name_claim)?,
        kind,
        grants: grants.collect::<Result<_, _>>()?,
    })
}

fn claim_path(key: String, raw: RawPath) -> Result<ClaimPath, ConfigError> {
    let names = match raw {
        RawPath::Top(name) => vec![name],
        RawPath::Nested(names) => names,
    };
    let found = quoted(&names);
    ClaimPath::new(names).ok_or_else(|| invalid(key, "a claim's name, or 1 to 8 names that lead to it", found))
}

fn grant(key: &str, raw: RawGrant) -> Result<Grant, ConfigError> {
    let missing = |name: &str, expected| ConfigError::Missing { key: format!("{key}.{name}"), expected };
    let on = raw.on.ok_or_else(|| missing("on", "a log or a prefix such as c:support-*"))?;
    let on = GrantPattern::new(&on)
        .map_err(|_| invalid(format!("{key}.on"), "c:<id>, u:<id> or a prefix followed by *", quoted(&on)))?;
    let words = raw.can.ok_or_else(|| missing("can", "a list of read, send, signal, stream, room, manage"))?;
    let can: Option<Abilities> = words.iter().map(|word| Ability::from_word(word)).collect();
    let can = can.ok_or_else(|| {
        invalid(format!("{key}.can"), "a list of read, send, signal, stream, room, manage", quoted(&words))
    })?;
    Ok(Grant { on, can })
}

fn tenant(key: String, id: &str) -> Result<TenantId, ConfigError> {
    const EXPECTED: &str = "1 to 64 of A-Z a-z 0-9 . _ : @ | ~ - and no ~ at the beginning";
    let chosen = Some(id).filter(|id| !id.starts_with('~')).and_then(|id| TenantId::new(id).ok());
    chosen.ok_or_else(|| invalid(key, EXPECTED, quoted(id)))
}

pub(super) fn quoted<T: std::fmt::Debug + ?Sized>(value: &T) -> String {
    format!("{value:?}")
}
