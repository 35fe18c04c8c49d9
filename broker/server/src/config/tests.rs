//! Every rule between the keys, and the shipped example.

use std::{fs, path::Path};

use antiphon_core::claims::{Ability, ActorKind};

use super::*;
use crate::auth::{ClaimPath, TenantSource};

const ISSUER: &str = "[[issuers]]\nissuer = \"https://i.example\"\ntenants = [\"acme\"]\n\
                      [[issuers.keys]]\nid = \"1\"\nalgorithm = \"EdDSA\"\nfile = \"key.pem\"\n";

fn defaults() -> Result<Config, ConfigError> {
    Config::load(None, [], Overrides::default(), 4)
}

fn from_text(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("antiphon.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), [], Overrides::default(), 4)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Refused in one line that holds all of these.
fn refused(result: Result<Config, ConfigError>, fragments: &[&str]) {
    let error = result.unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    for fragment in fragments {
        assert!(error.contains(fragment), "{fragment:?} in {error:?}");
    }
}

#[test]
fn nothing_configured_is_development_on_loopback() {
    let config = defaults().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7000");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:7001");
    assert_eq!(config.data_dir, Path::new("antiphon-data"));
    assert_eq!((config.shards.get(), config.development, config.tls), (4, true, None));
    assert_eq!(config.log, LogSettings { format: LogFormat::Text, filter: "info".to_owned() });
    let limits = Limits { idle_timeout: Duration::from_secs(30), connections_per_shard_max: 20_000 };
    assert_eq!(config.limits, limits);
}

#[test]
fn logs_on_a_cluster_have_settings_of_their_own() {
    let text = "[store]\nengine = \"scylla\"\ncontact_points = [\"db1:9042\", \"db2:9042\"]\nkeyspace = \"chat\"\n\
                user = \"ann\"\npassword_file = \"secret\"\ndatacenter = \"east\"\nconsistency = \"local-quorum\"\n\
                accept = [\"low-replication\"]\n";
    let config = from_text(&format!("development = true\n{text}")).unwrap();
    let StoreSettings::Cql(settings) = config.store else { panic!("not on a cluster") };
    assert_eq!((settings.contact_points.len(), settings.keyspace.as_str(), settings.is_local), (2, "chat", true));
    assert_eq!((settings.replication_factor, settings.accepted.len()), (3, 1));
    let environment = variables(&[
        ("ANTIPHON_STORE_ENGINE", "cassandra"),
        ("ANTIPHON_STORE_CONTACT_POINTS", "db1:9042, db2:9042"),
        ("ANTIPHON_STORE_REPLICATION_FACTOR", "1"),
        ("ANTIPHON_STORE_ACCEPT", "low-replication"),
        ("ANTIPHON_STORE_USER", "ann"),
        ("ANTIPHON_STORE_PASSWORD", "geheim"),
    ]);
    let config = Config::load(None, environment, Overrides::default(), 1).unwrap();
    let StoreSettings::Cql(settings) = config.store else { panic!("not on a cluster") };
    assert_eq!((settings.contact_points.len(), settings.replication_factor), (2, 1));
    assert!(!format!("{settings:?}").contains("geheim"));
}

#[test]
fn sizes_for_tests_come_from_the_environment_only() {
    assert_eq!(defaults().unwrap().test_segment_bytes, None);
    let load =
        |value| Config::load(None, variables(&[("ANTIPHON_TEST_SEGMENT_BYTES", value)]), Overrides::default(), 1);
    assert_eq!(load("1048576").unwrap().test_segment_bytes, Some(1 << 20));
    for value in ["1000", "1048577", "33558528"] {
        refused(load(value), &["ANTIPHON_TEST_SEGMENT_BYTES", "multiple of 4096", value]);
    }
    refused(load("much"), &["ANTIPHON_TEST_SEGMENT_BYTES", "whole number"]);
    refused(from_text("test_segment_bytes = 1048576\n"), &["test_segment_bytes"]);
}

#[test]
fn the_shipped_example_is_complete_and_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/antiphon.toml");
    let config = Config::load(Some(&path), [], Overrides::default(), 1).unwrap();
    assert_eq!((config.listen.port(), config.shards.get(), config.development), (7000, 4, false));
    assert_eq!(config.limits, defaults().unwrap().limits, "the example shows the defaults");
    assert_eq!(config.log, defaults().unwrap().log, "the example shows the defaults");
    assert_eq!(config.presence, defaults().unwrap().presence, "the example shows the defaults");
    let tls = config.tls.unwrap();
    assert!(tls.key.ends_with("deploy/tls/privkey.pem") && tls.certificate.ends_with("deploy/tls/fullchain.pem"));
    let [own, stock] = &config.issuers[..] else { panic!("two issuers") };
    assert_eq!((own.policy.leeway_seconds, &own.policy.mapping), (30, &None));
    assert!(matches!(&own.keys, KeySource::Files(files) if files[0].algorithm == Algorithm::EdDsa));
    let mapping = stock.policy.mapping.as_ref().unwrap();
    assert!(matches!(&mapping.tenant, TenantSource::Fixed(tenant) if tenant.as_str() == "staff"));
    assert_eq!((mapping.kind, &mapping.name), (ActorKind::User, &Some(ClaimPath::top("name"))));
    assert!(mapping.grants[0].allows("c:announcements-1", Ability::Read));
    assert!(matches!(&stock.keys, KeySource::KeySet(path) if path.ends_with("deploy/keys/staff.jwks.json")));
}

#[test]
fn flags_beat_the_environment_and_the_environment_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("antiphon.toml");
    fs::write(&path, "development = true\nlisten = \"127.0.0.1:1\"\nshards = 1\ndata_dir = \"data\"\n").unwrap();
    let environment = variables(&[("ANTIPHON_LISTEN", "127.0.0.1:2"), ("ANTIPHON_SHARDS", "2"), ("PATH", "/bin")]);
    let flags = Overrides { listen: Some("[::1]:3".to_owned()), ..Overrides::default() };
    let config = Config::load(Some(&path), environment, flags, 9).unwrap();
    assert_eq!((config.listen.to_string().as_str(), config.shards.get()), ("[::1]:3", 2));
    assert_eq!(config.data_dir, folder.path().join("data"));
}

#[test]
fn every_variable_reaches_its_key() {
    let environment = variables(&[
        ("ANTIPHON_LISTEN", "127.0.0.1:1"),
        ("ANTIPHON_ADMIN_LISTEN", "127.0.0.1:2"),
        ("ANTIPHON_DATA_DIR", "/d"),
        ("ANTIPHON_SHARDS", "3"),
        ("ANTIPHON_DEVELOPMENT", "true"),
        ("ANTIPHON_TLS_CERTIFICATE", "/c"),
        ("ANTIPHON_TLS_KEY", "/k"),
        ("ANTIPHON_LOG_FORMAT", "json"),
        ("ANTIPHON_STORE_CACHE_MIB", "4"),
        ("ANTIPHON_LOG_FILTER", "debug"),
        // What an orchestrator invents for a service called antiphon is not ours.
        ("ANTIPHON_PORT", "tcp://10.0.0.1:7000"),
    ]);
    let config = Config::load(None, environment, Overrides::default(), 1).unwrap();
    assert_eq!((config.listen.port(), config.admin_listen.port(), config.shards.get()), (1, 2, 3));
    assert_eq!((config.data_dir.as_path(), config.development), (Path::new("/d"), true));
    assert_eq!(config.tls, Some(TlsFiles { certificate: "/c".into(), key: "/k".into() }));
    assert_eq!(config.log, LogSettings { format: LogFormat::Json, filter: "debug".to_owned() });
    assert_eq!(config.store, StoreSettings::Embedded { cache_bytes: 4 << 20 });
    for (name, value) in [("ANTIPHON_SHARDS", "many"), ("ANTIPHON_DEVELOPMENT", "yes")] {
        refused(Config::load(None, variables(&[(name, value)]), Overrides::default(), 1), &[name, "expected", value]);
    }
}

#[test]
fn syntax_errors_are_one_line_with_file_line_and_key() {
    let cases = [
        ("development = true\nshards = \"four\"\n", &["antiphon.toml, line 2, `shards`", "i64"][..]),
        ("lisen = \"127.0.0.1:1\"\n", &["line 1", "`lisen`", "unknown field", "`listen`"]),
        ("[limits]\nidle = 1\n", &["line 2", "`idle`", "`idle_timeout_seconds`"]),
        ("\n\n[[issuers]]\nkey = 1\n", &["line 4", "`key`"]),
        ("listen = \n", &["line 1"]),
        ("[tls\n", &["line 1"]),
        ("shards = 1\nshards = 2\n", &["line 2", "shards"]),
        ("[[issuers]]\nclaims = { user_claim = 7 }\n", &["line 2", "claim's name"]),
    ];
    for (text, fragments) in cases {
        refused(from_text(text), fragments);
    }
    let absent = Config::load(Some(Path::new("/nonexistent/a.toml")), [], Overrides::default(), 1);
    refused(absent, &["/nonexistent/a.toml", "cannot be read"]);
}

#[test]
fn values_out_of_range_name_key_range_and_value() {
    let cases = [
        ("listen = \"localhost:7000\"", &["listen: expected an address and port", "\"localhost:7000\""][..]),
        ("admin_listen = \"127.0.0.1\"", &["admin_listen: expected"]),
        ("shards = 0", &["shards: expected 1 to 64, not 0"]),
        ("shards = 65", &["shards: expected 1 to 64, not 65"]),
        ("shards = -1", &["shards: expected 1 to 64, not -1"]),
        ("shards = 65537", &["shards: expected 1 to 64, not 65537"]),
        ("[limits]\nidle_timeout_seconds = 9", &["limits.idle_timeout_seconds", "10 to 600", "not 9"]),
        ("[limits]\nidle_timeout_seconds = 4294967326", &["limits.idle_timeout_seconds", "4294967326"]),
        ("[limits]\nconnections_per_shard_max = 0", &["limits.connections_per_shard_max"]),
        ("[store]\nengine = \"oracle\"", &["store.engine", "embedded", "scylla", "oracle"]),
        ("[store]\nkeyspace = \"chat\"", &["store.keyspace", "store.engine"]),
        ("[store]\nengine = \"scylla\"", &["store.contact_points", "missing"]),
        (
            "[store]\nengine = \"scylla\"\ncontact_points = [\"db\"]",
            &["store.contact_points[0]", "host and port", "db"],
        ),
        (
            "[store]\nengine = \"scylla\"\ncontact_points = [\"db:9042\"]\nkeyspace = \"Chat; DROP\"",
            &["store.keyspace", "lower-case letter"],
        ),
        (
            "[store]\nengine = \"scylla\"\ncontact_points = [\"db:9042\"]\naccept = [\"anything\"]",
            &["store.accept[0]", "periodic-commitlog", "anything"],
        ),
        (
            "[store]\nengine = \"scylla\"\ncontact_points = [\"db:9042\"]\nuser = \"ann\"",
            &["store.user", "password_file"],
        ),
        (
            "[store]\nengine = \"scylla\"\ncontact_points = [\"db:9042\"]\nconsistency = \"local-quorum\"",
            &["store.datacenter", "missing"],
        ),
        ("[store]\nengine = \"scylla\"\ncontact_points = [\"db:9042\"]\ncache_mib = 9", &["store.cache_mib"]),
        ("advertise = \"chat\"", &["advertise", "host and port", "chat"]),
        ("[store]\ncache_mib = 0", &["store.cache_mib", "1 to 1048576 MiB", "0"]),
        ("[log]\nformat = \"xml\"", &["log.format", "\"text\" or \"json\"", "\"xml\""]),
        ("[tls]\ncertificate = \"c\"", &["tls.key is missing"]),
        ("[tls]\nkey = \"k\"", &["tls.certificate is missing"]),
    ];
    for (text, fragments) in cases {
        let text = if text.starts_with('[') {
            format!("development = true\n{text}")
        } else {
            format!("{text}\ndevelopment = true")
        };
        refused(from_text(&text), fragments);
    }
}

#[test]
fn what_strangers_can_reach_needs_issuers_and_a_certificate() {
    let with_tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    for listen in ["0.0.0.0:7000", "[::]:7000", "192.0.2.1:7000", "[::ffff:192.0.2.1]:7000"] {
        let open = format!("listen = \"{listen}\"\n");
        let flags = || Overrides { listen: Some(listen.to_owned()), ..Overrides::default() };
        refused(Config::load(None, [], flags(), 1), &["issuers", "nobody could log in"]);
        refused(from_text(&format!("{open}{with_tls}")), &["issuers"]);
        refused(from_text(&format!("{open}{ISSUER}")), &["tls", "tls.certificate"]);
        refused(from_text(&format!("{open}development = true\n{with_tls}{ISSUER}")), &["development", "loopback only"]);
        assert!(!from_text(&format!("{open}{with_tls}{ISSUER}")).unwrap().development);
    }
    for listen in ["127.0.0.1:7000", "127.8.8.8:7000", "[::1]:7000", "[::ffff:127.0.0.1]:7000"] {
        let flags = Overrides { listen: Some(listen.to_owned()), ..Overrides::default() };
        assert!(Config::load(None, [], flags, 1).unwrap().development, "{listen}");
    }
}

#[test]
fn development_mode_is_never_reachable_and_never_a_surprise() {
    let open_admin = Overrides { admin_listen: Some("0.0.0.0:7001".to_owned()), ..Overrides::default() };
    refused(Config::load(None, [], open_admin.clone(), 1), &["issuers"]);
    let insisting = Overrides { development: Some(true), ..open_admin };
    refused(Config::load(None, [], insisting, 1), &["development", "admin_listen"]);
    // A file means that somebody has configured something: development mode must then be asked for.
    refused(from_text("shards = 2\n"), &["issuers", "development = true"]);
    assert!(!from_text(ISSUER).unwrap().development);
    assert!(from_text(&format!("development = true\n{ISSUER}")).unwrap().development);
}

#[test]
fn issuers_are_checked_field_by_field() {
    let cases = [
        ("tenants = [\"a\"]", &["issuers[0].issuer is missing"][..]),
        ("issuer = \"i\"", &["issuers[0].tenants is missing"]),
        ("issuer = \"i\"\ntenants = []", &["issuers[0].tenants is missing"]),
        ("issuer = \"i\"\ntenants = [\"a b\"]", &["issuers[0].tenants", "\"a b\""]),
        ("issuer = \"i\"\ntenants = [\"~a\"]", &["issuers[0].tenants", "\"~a\""]),
        ("issuer = \"i\"\ntenants = [\"a\"]", &["issuers[0].keys is missing"]),
        ("issuer = \"i\"\ntenants = [\"a\"]\naudiences = []", &["issuers[0].audiences"]),
        ("issuer = \"i\"\ntenants = [\"a\"]\nleeway_seconds = 31", &["issuers[0].leeway_seconds", "0 to 30", "31"]),
        ("issuer = \"i\"\ntenants = [\"a\"]\nkey_set = \"k\"\nkeys = [{}]", &["issuers[0].keys", "either"]),
        ("issuer = \"i\"\ntenants = [\"a\"]\nkeys = [{}]", &["issuers[0].keys[0].algorithm is missing"]),
        ("issuer = \"i\"\ntenants = [\"a\"]\nkeys = [{ algorithm = \"none\" }]", &["keys[0].algorithm", "\"none\""]),
        ("issuer = \"i\"\ntenants = [\"a\"]\nkeys = [{ algorithm = \"ES256\" }]", &["keys[0].file is missing"]),
    ];
    for (text, fragments) in cases {
        refused(from_text(&format!("[[issuers]]\n{text}\n")), fragments);
    }
}

#[test]
fn claim_mappings_are_checked_field_by_field() {
    let cases = [
        ("", &["issuers[0].claims.tenant", "either"][..]),
        ("tenant = \"acme\"\ntenant_claim = \"t\"", &["issuers[0].claims.tenant", "either"]),
        ("tenant = \"other\"", &["issuers[0].claims.tenant", "one of the issuer's"]),
        ("tenant = \"acme\"\nkind = \"root\"", &["issuers[0].claims.kind", "\"root\""]),
        ("tenant = \"acme\"\nname_claim = []", &["issuers[0].claims.name_claim", "1 to 8"]),
        ("tenant = \"acme\"\nuser_claim = \"\"", &["issuers[0].claims.user_claim"]),
        ("tenant = \"acme\"\ngrants = [{ can = [] }]", &["issuers[0].claims.grants[0].on is missing"]),
        ("tenant = \"acme\"\ngrants = [{ on = \"*\", can = [] }]", &["issuers[0].claims.grants[0].on", "\"*\""]),
        ("tenant = \"acme\"\ngrants = [{ on = \"c:*\" }]", &["issuers[0].claims.grants[0].can is missing"]),
        ("tenant = \"acme\"\ngrants = [{ on = \"c:*\", can = [\"x\"] }]", &["grants[0].can", "\"x\""]),
    ];
    for (text, fragments) in cases {
        refused(from_text(&format!("{ISSUER}[issuers.claims]\n{text}\n")), fragments);
    }
    let nested = from_text(&format!("{ISSUER}[issuers.claims]\ntenant_claim = [\"org\", \"id\"]\n")).unwrap();
    let mapping = nested.issuers[0].policy.mapping.clone().unwrap();
    assert_eq!(mapping.tenant, TenantSource::Claim(ClaimPath::new(vec!["org".into(), "id".into()]).unwrap()));
    assert_eq!((mapping.user, mapping.token_id), (ClaimPath::top("sub"), ClaimPath::top("jti")));
}

#[test]
fn check_reads_every_file_and_names_the_one_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let text = format!("{ISSUER}[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n");
    fs::write(file("antiphon.toml"), text).unwrap();
    let config = Config::load(Some(&file("antiphon.toml")), [], Overrides::default(), 1).unwrap();
    let fails_with = |fragments: &[&str]| refused(config.check().map(|()| config.clone()), fragments);

    fails_with(&["issuers[0].keys[0].file", "key.pem", "cannot be read"]);
    fs::write(file("key.pem"), "hello").unwrap();
    fails_with(&["issuers[0].keys[0].file", "key.pem", "PUBLIC KEY"]);
    fs::write(file("key.pem"), include_bytes!("../../tests/fixtures/p256-public.pem")).unwrap();
    fails_with(&["issuers[0].keys[0].file", "EdDSA"]);
    fs::write(file("key.pem"), include_bytes!("../../tests/fixtures/ed25519-public.pem")).unwrap();
    fails_with(&["tls.certificate", "c.pem"]);

    let identity = Identity::load_or_create(&file("data")).unwrap();
    fs::write(file("c.pem"), &identity.certificate_pem).unwrap();
    fs::write(file("k.pem"), identity.certificate_key_pem()).unwrap();
    config.check().unwrap();
    assert!(!Path::new(&config.data_dir).exists(), "a check makes no data directory");
}

#[test]
fn development_tokens_count_in_development_mode_only() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(folder.path()).unwrap();
    let user = antiphon_protocol::UserId::new("ann").unwrap();
    let request = crate::auth::TokenRequest::user(crate::identity::development_tenant(), user);
    let now_ms = 1_800_000_000_000;
    let token = identity.minter().mint(&request, now_ms).unwrap();
    let mut config = defaults().unwrap();
    assert_eq!(config.verifier(&identity).unwrap().verify(&token, now_ms).unwrap().tenant.as_str(), "dev");
    config.development = false;
    let refused = config.verifier(&identity).unwrap().verify(&token, now_ms);
    assert_eq!(refused, Err(crate::auth::TokenError::IssuerUnknown));
}

#[test]
fn presence_is_this_process_alone_unless_redis_is_named() {
    assert_eq!(defaults().unwrap().presence, PresenceSettings::Process);
    let mut text = "development = true\n[presence]\nengine = \"redis\"\nurls = [\"redis://cache:6380\"]\n".to_owned();
    let PresenceSettings::Redis(redis) = from_text(&text).unwrap().presence else { panic!("redis was named") };
    assert_eq!((redis.urls.as_slice(), redis.is_cluster), (["redis://cache:6380".to_owned()].as_slice(), false));
    assert_eq!((redis.namespace.as_str(), redis.command_timeout), ("antiphon", Duration::from_secs(1)));
    text.push_str(
        "username = \"u\"\npassword_file = \"p\"\nca = \"ca.pem\"\nnamespace = \"chat-1\"\ncommand_timeout_ms = 100\n",
    );
    let PresenceSettings::Redis(redis) = from_text(&text).unwrap().presence else { panic!("redis was named") };
    assert!(redis.password_file.unwrap().is_absolute() && redis.ca.unwrap().is_absolute());
    let named = variables(&[("ANTIPHON_PRESENCE_ENGINE", "redis"), ("ANTIPHON_PRESENCE_URLS", "redis://a, redis://b")]);
    refused(Config::load(None, named, Overrides::default(), 1), &["presence", "2 addresses"]);
}

#[test]
fn what_redis_cannot_be_is_refused() {
    let presence = |lines: &str| from_text(&format!("development = true\n[presence]\n{lines}\n"));
    refused(presence("engine = \"memcached\""), &["presence.engine", "process or redis", "memcached"]);
    refused(presence("engine = \"redis\""), &["presence.urls", "redis://HOST:PORT"]);
    refused(presence("urls = [\"redis://u:p@cache\"]"), &["presence", "u:p@cache"]);
    refused(presence("urls = [\"redis://a\"]\nnamespace = \"{a}\""), &["presence", "namespace"]);
    refused(presence("command_timeout_ms = 5000"), &["presence.command_timeout_ms", "100 to 1500"]);
}

#[test]
fn the_files_of_presence_are_read_when_the_configuration_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("antiphon.toml");
    let text =
        "development = true\n[presence]\nengine = \"redis\"\nurls = [\"redis://cache\"]\npassword_file = \"p\"\n";
    fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), [], Overrides::default(), 1).unwrap();
    assert!(config.check().unwrap_err().to_string().contains("cannot be read"));
    fs::write(folder.path().join("p"), "secret\n").unwrap();
    config.check().unwrap();
    let PresenceSettings::Redis(redis) = &config.presence else { panic!("redis was named") };
    assert_eq!(redis.load().unwrap().password.unwrap().0, "secret");
}
