//! A broker whose logs are on a real Cassandra: it ends with one line where the operator has to mend something, and waits
//! where the cluster is away. Fails if Cassandra is not installed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use antiphon_cql_testing::{Cluster, Consistency, Fate, Node, Options};

use crate::broker::{ANY_PORTS, antiphon, command, exchange, failure, success};

const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Against a hang.
const HANG: Duration = Duration::from_secs(120);

fn start(options: Options) -> Cluster {
    Cluster::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// A configuration with logs at a contact point and some more lines about the store. It is there as long as this value.
struct Configured(tempfile::NamedTempFile);

impl Configured {
    fn new(contact_point: &str, more: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let store = format!(
            "development = true\n[log]\nfilter = \"error\"\n[store]\nengine = \"cassandra\"\ncontact_points = [\"{contact_point}\"]\n\
             keyspace = \"cli\"\nreplication_factor = 1\naccept = [\"low-replication\"]\n{more}\n"
        );
        std::fs::write(file.path(), store).unwrap();
        Self(file)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = antiphon();
        command.args(args).arg("--config").arg(self.0.path());
        command
    }

    fn serve(&self, data: &Path) -> Command {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--shards", "1"]);
        command.args(ANY_PORTS).arg("--data").arg(data);
        command
    }
}

/// What a cluster holds that a broker could have written.
fn written(node: &Node) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut connection = node.connect(QUERY_TIMEOUT).unwrap();
    let tables = "SELECT keyspace_name, table_name FROM system_schema.tables";
    let mut rows = connection.query(tables, Consistency::One).unwrap();
    if rows.iter().any(|row| row[0].as_deref() == Some(b"cli")) {
        for table in ["cli.events", "cli.heads", "cli.records", "cli_coordination.lease"] {
            rows.extend(connection.query(&format!("SELECT * FROM {table}"), Consistency::One).unwrap());
        }
    }
    rows
}

#[test]
fn what_the_operator_has_to_mend_ends_the_start_with_one_line() {
    let (plain, secure) = thread::scope(|scope| {
        let secure = scope.spawn(|| start(Options::default().authentication(true).tls(true)));
        (start(Options::default()), secure.join().unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let log_in = |password: &str| {
        let file = file(password, password);
        format!("user = \"cassandra\"\npassword_file = \"{}\"\n", file.display())
    };
    let trust = |ca: &Path| format!("tls_ca = \"{}\"\n", ca.display());
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    let (ca, other_ca) = (secure.ca().unwrap(), file("stranger", &stranger.cert.pem()));
    let (at_secure, at_plain) = (secure.contact_points()[0].to_string(), plain.contact_points()[0].to_string());

    let data = folder.path().join("data");
    let refused = |contact_point: &str, more: &str, code: i32, expected: &str| {
        let before = (written(plain.node(1)), written(secure.node(1)));
        let output = Configured::new(contact_point, more).serve(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let said = failure(output);
        assert!(said.lines().count() == 1 && said.contains(expected), "expected `{expected}`, got {said}");
        assert!(before == (written(plain.node(1)), written(secure.node(1))), "something was written");
        assert!(!data.exists(), "a data directory was made");
    };

    refused(&at_plain, "", 1, "keyspace `cli` has no schema: run `antiphon schema apply`");
    success(Configured::new(&at_plain, "").command(&["schema", "apply"]).output().unwrap());
    let user = "the cluster refuses the credentials of user `cassandra`: ";
    refused(&at_secure, &(trust(&ca) + &log_in("guess")), 1, user);
    refused(&at_secure, &trust(&ca), 1, "the credentials of user `(none)`: it asks for a user");
    refused(&at_secure, &log_in("cassandra"), 1, ": it is spoken there; set `store.tls_ca`");
    refused(&at_plain, &trust(&ca), 1, ": it is not spoken there; leave `store.tls_ca` away");
    refused(&at_secure, &trust(&other_ca), 1, "does not lead to a root of `store.tls_ca`");
    refused("no-such-host.invalid:9042", "", 1, "nobody knows the name of any of no-such-host.invalid:9042");
    refused(&at_plain, "colour = \"blue\"", 2, "colour");
    let newer = "UPDATE cli_coordination.schema_version SET version = 99 WHERE name = 'logs'";
    plain.node(1).connect(QUERY_TIMEOUT).unwrap().query(newer, Consistency::One).unwrap();
    refused(&at_plain, "", 1, "keyspace `cli` has schema version 99, which is newer than this program's");

    // And with nothing to mend it does start.
    let complete = Configured::new(&at_secure, &(trust(&ca) + &log_in("cassandra")));
    success(complete.command(&["schema", "apply"]).output().unwrap());
    success(complete.command(&["schema", "check"]).output().unwrap());
    let broker = Waiting::start(complete.serve(&data));
    broker.wait_until("200 OK");
}

/// A broker that may or may not be ready.
struct Waiting {
    child: Child,
    admin: SocketAddr,
}

impl Waiting {
    /// It says where it listens before it is ready.
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut facts = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let admin = facts.find_map(|fact| fact.strip_prefix("admin: http://")?.trim_end_matches('/').parse().ok());
        // The rest is read to its end, so that the broker never waits for a reader.
        thread::spawn(move || facts.for_each(drop));
        Self { child, admin: admin.unwrap() }
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        exchange(&self.admin.to_string(), &format!("GET {path}"), "", "")
    }

    /// Until `/readyz` says so.
    fn wait_until(&self, expected: &str) {
        self.wait_for("/readyz", |said| said.contains(expected));
    }

    fn wait_for(&self, path: &str, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + HANG;
        let mut last = String::new();
        while Instant::now() < deadline {
            last = self.get(path).unwrap_or_else(|error| error.to_string());
            if is_so(&last) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} still says {last}");
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_cluster_that_is_away_at_the_start_is_waited_for() {
    let cluster = start(Options::default().proxied(true));
    let proxy = cluster.proxy(Arc::new(|_| Fate::Pass)).unwrap();
    let configured = Configured::new(&proxy.contact_points()[0].to_string(), "");
    success(configured.command(&["schema", "apply"]).output().unwrap());
    // From here on nobody listens there.
    drop(proxy);
    let said = failure(configured.command(&["schema", "check"]).output().unwrap());
    assert!(said.lines().count() == 1 && said.contains("no node of the cluster answers at "), "{said}");
    let data = tempfile::tempdir().unwrap();
    let broker = Waiting::start(configured.serve(&data.path().join("data")));
    broker.wait_until("the store does not answer");
    let _proxy = cluster.proxy(Arc::new(|_| Fate::Pass)).unwrap();
    broker.wait_until("200 OK");
    let is_counted =
        |line: &str| line.starts_with("antiphon_store_request_seconds_count{kind=\"lease\"} ") && !line.ends_with(" 0");
    broker.wait_for("/metrics", |said| said.lines().any(is_counted));

    // A second broker stands by, and says so to whoever comes to it.
    let home = data.path().join("second");
    let second = Waiting::start(configured.serve(&home));
    second.wait_until("another broker is active");
    let said = failure(command(&home, &["pub", "c:lobby", "hello", "--user", "ann"]).output().unwrap());
    assert!(said.contains("another broker is active, at 127.0.0.1:"), "{said}");
}
