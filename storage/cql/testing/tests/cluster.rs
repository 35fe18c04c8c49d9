//! Real servers: each test starts its own. They fail if Cassandra is not installed.

#![allow(clippy::unwrap_used)]

use std::{
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use antiphon_cql_testing::{
    Cluster, Connection, ConnectionError, Consistency, ControlError, LaunchError, Node, Options,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const RING_TIMEOUT: Duration = Duration::from_secs(60);
/// How the protocol numbers "too few replicas are up" and "too few replicas wrote in time".
const REFUSED_OR_TIMED_OUT: [u32; 2] = [0x1000, 0x1100];

fn connect(node: &Node) -> Connection {
    Connection::open(node.address(), TIMEOUT).unwrap()
}

/// A table in which every node keeps every row.
fn create_table(node: &Node, copies: usize) {
    let mut connection = connect(node);
    let keyspace =
        format!("CREATE KEYSPACE k WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {copies}}}");
    connection.query(&keyspace, Consistency::One).unwrap();
    connection.query("CREATE TABLE k.t (key text PRIMARY KEY, value text)", Consistency::One).unwrap();
}

fn insert(key: &str, value: &str) -> String {
    format!("INSERT INTO k.t (key, value) VALUES ('{key}', '{value}')")
}

fn write(node: &Node, key: &str, value: &str, consistency: Consistency) -> Result<(), ConnectionError> {
    connect(node).query(&insert(key, value), consistency).map(drop)
}

fn read(node: &Node, key: &str, consistency: Consistency) -> Option<String> {
    let statement = format!("SELECT value FROM k.t WHERE key = '{key}'");
    let rows = connect(node).query(&statement, consistency).unwrap();
    rows.first().map(|row| String::from_utf8(row[0].clone().unwrap()).unwrap())
}

fn has_process(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_node_is_what_it_says_and_keeps_what_it_acknowledged_over_a_kill_and_a_stop() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let node = cluster.node(1);
    let version = connect(node).query("SELECT release_version FROM system.local", Consistency::One).unwrap();
    assert_eq!(version, [[Some(cluster.version().number().as_bytes().to_vec())]]);
    let sync = "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'";
    assert_eq!(connect(node).query(sync, Consistency::One).unwrap(), [[Some(b"batch".to_vec())]]);
    assert!(matches!(node.start(), Err(LaunchError::Running(1))));

    create_table(node, 1);
    write(node, "first", "before the kill", Consistency::One).unwrap();
    let first = node.pid().unwrap();
    node.kill().unwrap();
    assert!(!node.is_running() && !has_process(first));
    assert!(TcpStream::connect(node.address()).is_err());
    assert!(matches!(node.kill(), Err(ControlError::NotRunning(1))));

    node.start().unwrap();
    assert_ne!(node.pid(), Some(first));
    assert_eq!(read(node, "first", Consistency::One).as_deref(), Some("before the kill"));

    write(node, "second", "before the stop", Consistency::One).unwrap();
    node.pause().unwrap();
    node.stop().unwrap();
    node.start().unwrap();
    assert_eq!(read(node, "second", Consistency::One).as_deref(), Some("before the stop"));
    assert!(node.log_tail(1_000).lines().count() <= 1_000 && node.log_tail(5).lines().count() == 5);
}

#[test]
fn three_nodes_form_a_ring_that_survives_one_and_comes_back_from_two() {
    let cluster =
        Cluster::start(Options::default().nodes(3).authentication(true).write_request_timeout_ms(3_000)).unwrap();
    let [one, two, three] = cluster.nodes() else { panic!("{cluster:?}") };
    for node in cluster.nodes() {
        assert_eq!(connect(node).query("SELECT peer FROM system.peers", Consistency::One).unwrap().len(), 2);
    }
    create_table(one, 3);
    cluster.wait_for_ring(RING_TIMEOUT).unwrap();
    write(one, "a", "by all", Consistency::All).unwrap();

    two.kill().unwrap();
    write(one, "b", "without node 2", Consistency::Quorum).unwrap();
    assert!(write(one, "c", "without node 2", Consistency::All).is_err());

    // Node 1 reaches nobody, whether or not it has noticed. Who wants to log in now cannot: that takes a majority too.
    let mut connection = connect(one);
    three.pause().unwrap();
    assert!(three.is_running());
    let error = connection.query(&insert("d", "alone"), Consistency::Quorum).unwrap_err();
    let ConnectionError::Refused { code, .. } = error else { panic!("{error}") };
    assert!(REFUSED_OR_TIMED_OUT.contains(&code), "{error}");

    // Node 2 starts while one other is silent.
    two.start().unwrap();
    three.resume().unwrap();
    cluster.wait_for_ring(RING_TIMEOUT).unwrap();
    for node in cluster.nodes() {
        assert_eq!(read(node, "a", Consistency::All).as_deref(), Some("by all"));
        assert_eq!(read(node, "b", Consistency::All).as_deref(), Some("without node 2"));
    }
}

#[test]
fn clusters_do_not_collide_and_leave_nothing() {
    let clusters = thread::scope(|scope| {
        let starting = [(); 2].map(|()| scope.spawn(|| Cluster::start(Options::default()).unwrap()));
        starting.map(|cluster| cluster.join().unwrap())
    });
    // The threads that started them have ended, and they run.
    let nodes = clusters.each_ref().map(|cluster| cluster.node(1));
    assert_ne!(nodes[0].address(), nodes[1].address());
    for node in nodes {
        create_table(node, 1);
        write(node, "a", &node.address().to_string(), Consistency::One).unwrap();
    }
    for node in nodes {
        assert_eq!(read(node, "a", Consistency::One), Some(node.address().to_string()));
    }

    let left: Vec<_> = nodes.iter().map(|node| (node.pid().unwrap(), node.log(), node.address())).collect();
    nodes[0].pause().unwrap();
    let begun = Instant::now();
    drop(clusters);
    assert!(begun.elapsed() < TIMEOUT);
    for (pid, log, address) in left {
        let folder = log.ancestors().nth(2).unwrap();
        assert!(!has_process(pid) && !folder.exists() && TcpStream::connect(address).is_err());
        assert!(folder.file_name().unwrap().to_string_lossy().starts_with("antiphon-cassandra-"));
    }
}

#[test]
fn a_cluster_has_one_to_three_nodes() {
    for nodes in [0, 4] {
        let error = Cluster::start(Options::default().nodes(nodes)).unwrap_err();
        assert_eq!(error.to_string(), format!("a cluster has 1 to 3 nodes, not {nodes}"));
    }
}

#[test]
fn a_node_that_cannot_start_shows_its_log() {
    // The server itself refuses a heap that Java cannot even begin with.
    let error = Cluster::start(Options::default().heap_mib(16)).unwrap_err();
    let LaunchError::Ended { node: 1, log_end, .. } = error else { panic!("{error}") };
    assert!(log_end.contains("heap"), "{log_end}");
}
