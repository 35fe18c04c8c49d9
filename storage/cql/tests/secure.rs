//! A cluster that wants TLS and a password: who has both is served, and who lacks one hears which.

mod support;

use std::sync::OnceLock;

use antiphon_cql_testing::{Cluster, Options};
use antiphon_storage::{
    Direction, EventLog, Op, Outcome, ReadRows, Token,
    conformance::{
        Backend,
        rows::{append, log},
    },
};
use antiphon_storage_cql::{CqlConfig, CqlError, CqlStore, Credentials, Downgrade, schema};
use support::{Open, block_on, node};

fn secure() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let start = || Cluster::start(Options::default().authentication(true).tls(true));
    CLUSTER.get_or_init(|| start().unwrap_or_else(|error| panic!("{error}")))
}

fn at(cluster: &Cluster) -> CqlConfig {
    let contact_points = cluster.contact_points().iter().map(ToString::to_string).collect();
    let mut config = CqlConfig::new(contact_points, "antiphon_secure".to_owned());
    config.replication_factor = 1;
    config.accepted.insert(Downgrade::LowReplication);
    config
}

fn superuser(password: &str) -> Option<Credentials> {
    Some(Credentials { user: "cassandra".to_owned(), password: password.to_owned() })
}

fn complete() -> CqlConfig {
    let mut config = at(secure());
    (config.tls, config.credentials) = (secure().trust(), superuser("cassandra"));
    config
}

fn refusal(config: &CqlConfig) -> CqlError {
    CqlStore::connect(config).expect_err("it is refused")
}

#[test]
fn who_has_the_root_and_the_password_writes_and_reads() {
    let config = complete();
    block_on(schema::apply(&config)).expect("the schema is applied");
    let mut store = Open::fresh(&config);
    let range = ReadRows { from: 1, to: 9, direction: Direction::Forward, rows_max: 9, bytes_max: usize::MAX };
    let mut done = Vec::new();
    for (n, op) in [append(1, 1..4), Op::Read { log: log(1), range }].into_iter().enumerate() {
        store.submit(op, Token(n as u64));
        while done.len() <= n {
            store.poll_completions(&mut done);
            if done.len() <= n {
                store.wait();
            }
        }
    }
    assert_eq!(done[0].result, Ok(Outcome::Done));
    let Ok(Outcome::Rows(rows)) = &done[1].result else { panic!("{:?}", done[1]) };
    assert_eq!(rows.len(), 3);
}

#[test]
fn who_lacks_something_hears_what() {
    let mut wrong_password = complete();
    wrong_password.credentials = superuser("guess");
    let mut no_password = complete();
    no_password.credentials = None;
    let mut without_tls = complete();
    without_tls.tls = None;
    let mut tls_at_a_plain_server = at(node());
    tls_at_a_plain_server.tls = secure().trust();
    let other = Cluster::start(Options::default().tls(true)).unwrap_or_else(|error| panic!("{error}"));
    let mut wrong_root = complete();
    wrong_root.tls = other.trust();
    let mut unknown_host = at(node());
    unknown_host.contact_points = vec!["no-such-host.invalid:9042".to_owned()];
    let mut nobody = at(node());
    nobody.contact_points = vec!["127.0.0.1:1".to_owned()];
    let said = |config: &CqlConfig| {
        let error = refusal(config);
        assert!(!error.is_transient(), "{error}");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    for (config, expected) in [
        (&wrong_password, "refuses the credentials of user `cassandra`: "),
        (&no_password, "refuses the credentials of user `(none)`: it asks for a user and a password"),
        (&without_tls, ": it is spoken there; set `store.tls_ca`"),
        (&tls_at_a_plain_server, ": it is not spoken there; leave `store.tls_ca` away"),
        (&wrong_root, "does not lead to a root of `store.tls_ca`"),
        (&unknown_host, "nobody knows the name of any of no-such-host.invalid:9042"),
    ] {
        let line = said(config);
        assert!(line.contains(expected), "{line}");
    }
    let error = refusal(&nobody);
    assert!(error.is_transient() && matches!(error, CqlError::Unreachable { .. }), "{error}");
}
