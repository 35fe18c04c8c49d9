//! What a node reads when it starts: `cassandra.yaml`, the form of its log, and its command line.

use std::{fs, io, path::Path, process::Command};

use crate::{
    addresses::Addresses,
    identity::{IDENTITY, ROOT},
    installation::Installation,
    options::{CommitlogSync, Options},
    spawner::bound_to_parent,
};

const YAML: &str = "cassandra.yaml";
const LOGBACK: &str = "logback.xml";
/// Java unpacks libraries there that a killed process leaves behind.
const TEMPORARY: &str = "tmp";
const DAEMON: &str = "org.apache.cassandra.service.CassandraDaemon";

/// Standard output is the log file. No thread names: the lines are for people who look for a reason.
const LOGBACK_XML: &str = r#"<configuration>
    <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
        <encoder><pattern>%d %-5level %logger{20} %msg%n</pattern></encoder>
    </appender>
    <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"#;

/// That there is no superuser yet must not be remembered for as long as usual, which is 2 s.
const PASSWORDS: &str = "authenticator: PasswordAuthenticator\nroles_validity: 100ms\ncredentials_validity: 100ms";

/// Packages that the server reaches into; it does not start, or fails later, without them.
const EXPORTS: [&str; 10] = [
    "java.base/java.lang.ref",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
];
const OPENS: [&str; 17] = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

/// Writes a node's configuration into its folder.
pub(crate) fn write(folder: &Path, options: &Options, addresses: &Addresses, node: usize) -> io::Result<()> {
    fs::create_dir_all(folder.join(TEMPORARY))?;
    fs::write(folder.join(LOGBACK), LOGBACK_XML)?;
    fs::write(folder.join(YAML), yaml(folder, options, addresses, node))
}

/// Every node is a seed, so that each of them can start while the others are away. Tokens are given and nothing is
/// streamed to a new node: the ring is empty when it forms.
fn yaml(folder: &Path, options: &Options, addresses: &Addresses, node: usize) -> String {
    let seeds: Vec<_> =
        (1..=options.nodes).map(|seed| format!("{}:{}", addresses.ip(seed), addresses.storage_port)).collect();
    format!(
        r#"cluster_name: antiphon
num_tokens: 1
initial_token: "{token}"
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{ seeds: "{seeds}" }}]
listen_address: {ip}
rpc_address: {ip}
broadcast_rpc_address: {told_ip}
storage_port: {storage_port}
native_transport_port: {native_port}
start_native_transport: true
{authenticator}
authorizer: AllowAllAuthorizer
{encryption}
{commitlog_sync}
write_request_timeout: {write_ms}ms
read_request_timeout: {read_ms}ms
auto_snapshot: false
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
data_file_directories: ["{folder}/data"]
commitlog_directory: "{folder}/commitlog"
saved_caches_directory: "{folder}/saved_caches"
hints_directory: "{folder}/hints"
cdc_raw_directory: "{folder}/cdc"
"#,
        token = token(node, options.nodes),
        seeds = seeds.join(","),
        ip = addresses.ip(node),
        told_ip = if options.proxied { addresses.stand_in_ip(node) } else { addresses.ip(node) },
        storage_port = addresses.storage_port,
        native_port = addresses.native_port,
        authenticator = if options.authentication { PASSWORDS } else { "authenticator: AllowAllAuthenticator" },
        encryption = if options.tls { encryption(folder) } else { String::new() },
        commitlog_sync = match options.commitlog_sync {
            CommitlogSync::Batch => "commitlog_sync: batch",
            CommitlogSync::Periodic => "commitlog_sync: periodic\ncommitlog_sync_period: 10s",
        },
        write_ms = options.write_request_timeout_ms,
        read_ms = options.read_request_timeout_ms,
        folder = folder.display(),
    )
}

/// Of clients; what the nodes say to each other stays on this machine. The server takes PEM files for its key store.
fn encryption(folder: &Path) -> String {
    let file = |name: &str| folder.with_file_name(name).display().to_string();
    format!(
        r#"client_encryption_options:
  enabled: true
  optional: false
  ssl_context_factory: {{ class_name: org.apache.cassandra.security.PEMBasedSslContextFactory }}
  keystore: "{identity}"
  truststore: "{root}"
  require_client_auth: false"#,
        identity = file(IDENTITY),
        root = file(ROOT),
    )
}

/// Tokens are 64-bit signed numbers; each node begins at an equal share of them.
fn token(node: usize, nodes: usize) -> i64 {
    let step = (1_i128 << 64) / nodes as i128;
    let token = i128::from(i64::MIN) + step * (node as i128 - 1);
    i64::try_from(token).unwrap_or(i64::MAX)
}

/// The node's process. It dies with this one.
pub(crate) fn command(folder: &Path, options: &Options, installation: &Installation) -> Command {
    let mut command = bound_to_parent(&installation.java.program);
    command.args(machine(options)).args(installation.classes.argument());
    command.args(EXPORTS.map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
    command.args(OPENS.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
    command.args(properties(folder, options).map(|(name, value)| format!("-D{name}={value}")));
    command.arg("-cp").arg(installation.jars.join("*")).arg(DAEMON);
    command
}

/// How Java itself runs.
fn machine(options: &Options) -> Vec<String> {
    let heap = format!("-Xmx{}m", options.heap_mib);
    // The server locks what is committed when it starts, so of the heap that should be little. Its own options have
    // assertions on. Counters in shared memory would be files that a killed process leaves behind.
    let always = ["-Xms64m", &heap, "-ea", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem"];
    let quick: &[_] = if options.quick_start { &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] } else { &[] };
    always.iter().chain(quick).map(ToString::to_string).collect()
}

fn properties(folder: &Path, options: &Options) -> [(&'static str, String); 12] {
    let file = |name: &str| folder.join(name).display().to_string();
    let nodes = options.nodes.to_string();
    [
        ("jdk.attach.allowAttachSelf", "true".into()),
        ("java.io.tmpdir", file(TEMPORARY)),
        ("logback.configurationFile", file(LOGBACK)),
        ("cassandra.config", format!("file://{}", file(YAML))),
        ("cassandra.storagedir", file("data")),
        ("cassandra-foreground", "yes".into()),
        // The others are there already, or will be seen when they come.
        ("cassandra.skip_wait_for_gossip_to_settle", "0".into()),
        ("cassandra.shutdown_announce_in_ms", "100".into()),
        // Also the pause between its attempts, which fail until a majority of the nodes is there.
        ("cassandra.superuser_setup_delay_ms", "300".into()),
        // Otherwise each node measures it, for three seconds; this is what it finds.
        ("cassandra.memtable.row_overhead_size", "180".into()),
        // What every node should keep a copy of, so that it is there whichever nodes are away.
        ("cassandra.system_auth.default_rf", nodes.clone()),
        ("cassandra.system_distributed.default_rf", nodes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_divide_the_ring_equally() {
        assert_eq!(token(1, 1), i64::MIN);
        assert_eq!(
            [1, 2, 3].map(|node| token(node, 3)),
            [i64::MIN, -3_074_457_345_618_258_603, 3_074_457_345_618_258_602]
        );
    }
}
