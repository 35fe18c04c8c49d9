//! Presence on a real Redis keeps the contract: one server, a cluster, and over TLS with a password.

use antiphon_storage::conformance::presence::{
    self,
    model::{self, Plan},
};
use antiphon_storage_redis::{RedisConfig, Secret, Tls};

use crate::support::{
    Redis, quick,
    server::{self, Server},
};

#[test]
fn one_server_keeps_the_contract() {
    let server = Server::start();
    let config = RedisConfig { timing: quick(), ..RedisConfig::single(&server.url()) };
    presence::run_all(&mut || Redis::fresh(&config));
}

#[test]
fn one_server_answers_like_the_reference() {
    let server = Server::start();
    let config = RedisConfig { timing: quick(), ..RedisConfig::single(&server.url()) };
    let compared = model::compare(&mut || Redis::fresh(&config), Plan { seed: 2, bursts: 300, death_once_in: 40 });
    assert!(compared >= 10_000, "{compared}");
}

#[test]
fn a_cluster_keeps_the_contract() {
    let nodes = server::cluster();
    let urls = nodes.iter().map(Server::url).collect();
    let config = RedisConfig { urls, is_cluster: true, timing: quick(), ..RedisConfig::single("") };
    presence::run_all(&mut || Redis::fresh(&config));
    let compared = model::compare(&mut || Redis::fresh(&config), Plan { seed: 3, bursts: 50, death_once_in: 20 });
    assert!(compared >= 1_000, "{compared}");
}

#[test]
fn a_server_with_tls_and_a_password_keeps_the_contract() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem();
    let arguments = [
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "secret",
        "--tls-cert-file",
        "{dir}/cert.pem",
        "--tls-key-file",
        "{dir}/key.pem",
        "--tls-ca-cert-file",
        "{dir}/cert.pem",
    ];
    let server = Server::prepared(&arguments, |dir| {
        std::fs::write(dir.join("cert.pem"), &pem).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    });
    let config = RedisConfig {
        password: Some(Secret("secret".into())),
        tls: Tls::Pem(pem.into_bytes()),
        timing: quick(),
        ..RedisConfig::single(&format!("rediss://localhost:{}", server.port))
    };
    presence::run_all(&mut || Redis::fresh(&config));
}
