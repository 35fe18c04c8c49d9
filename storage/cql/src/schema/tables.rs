//! The tables themselves, with the options that fit the servers.

use crate::{
    config::CqlConfig,
    server::{Product, Server},
};

/// The newest version.
pub const VERSION: i32 = 2;

/// How a table is written.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// Mostly written once, read by position.
    Written,
    /// Few rows that are read often.
    Read,
}

/// The statements that make the keyspaces. That of the lease is only ever written under conditions.
pub(super) fn keyspaces(config: &CqlConfig, server: &Server, datacenters: &[String]) -> Vec<String> {
    let copies = config.replication_factor;
    let places: String = datacenters.iter().map(|name| format!(", '{}': {copies}", name.replace('\'', "''"))).collect();
    let replication = format!("{{'class': 'NetworkTopologyStrategy'{places}}}");
    // Conditional writes on tablets are not supported by every version.
    let no_tablets = if server.has_tablets { " AND tablets = {'enabled': false}" } else { "" };
    let (logs, coordination) = (&config.keyspace, config.coordination());
    vec![
        format!("CREATE KEYSPACE IF NOT EXISTS {logs} WITH replication = {replication}"),
        format!("CREATE KEYSPACE IF NOT EXISTS {coordination} WITH replication = {replication}{no_tablets}"),
    ]
}

/// Where the version is noted.
pub(super) fn version_table(config: &CqlConfig) -> String {
    let keyspace = config.coordination();
    format!("CREATE TABLE IF NOT EXISTS {keyspace}.schema_version (name text PRIMARY KEY, version int, epoch int)")
}

/// The statements of each step: the first makes version 1.
pub(super) fn steps(config: &CqlConfig, server: &Server) -> Vec<Vec<String>> {
    vec![first(config, server), second(config)]
}

/// Copies into the keyspace that are unfinished.
fn second(config: &CqlConfig) -> Vec<String> {
    let keyspace = config.coordination();
    vec![format!("CREATE TABLE IF NOT EXISTS {keyspace}.copies (name text PRIMARY KEY, note text)")]
}

fn first(config: &CqlConfig, server: &Server) -> Vec<String> {
    let keyspace = &config.keyspace;
    let table = |name: &str, columns: &str, order: &str, how: Use| {
        let order = if order.is_empty() { String::new() } else { format!("CLUSTERING ORDER BY ({order}) AND ") };
        let compaction = compaction(server, how);
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns}) WITH {order}compaction = {compaction}")
    };
    vec![
        table(
            "events",
            "log uuid, bucket bigint, seq bigint, row blob, PRIMARY KEY ((log, bucket), seq)",
            "seq DESC",
            Use::Written,
        ),
        table(
            "buckets",
            "log uuid, bucket bigint, first_seq bigint, first_ms bigint, PRIMARY KEY (log, bucket)",
            "bucket DESC",
            Use::Read,
        ),
        table("heads", "log uuid PRIMARY KEY, floor bigint, checkpoint blob", "", Use::Written),
        table(
            "duplicates",
            "log uuid, slice int, client_message_id uuid, sender text, seq bigint, \
             PRIMARY KEY ((log, slice), client_message_id, sender)",
            "",
            Use::Written,
        ),
        table("records", "log uuid, key blob, value blob, PRIMARY KEY (log, key)", "", Use::Written),
        format!(
            "CREATE TABLE IF NOT EXISTS {}.lease (name text PRIMARY KEY, term bigint, holder uuid, seat text, \
             renewals bigint, stamps_until bigint, address text)",
            config.coordination()
        ),
    ]
}

/// The compaction that fits a use: each product and version has its own.
fn compaction(server: &Server, how: Use) -> &'static str {
    let major: u32 = server.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    match (server.product, how) {
        (Product::ScyllaDb, Use::Written) => "{'class': 'IncrementalCompactionStrategy'}",
        (Product::ScyllaDb, Use::Read) => "{'class': 'LeveledCompactionStrategy'}",
        (Product::Cassandra, Use::Written) if major >= 5 => "{'class': 'UnifiedCompactionStrategy'}",
        (Product::Cassandra, Use::Read) if major >= 5 => {
            "{'class': 'UnifiedCompactionStrategy', 'scaling_parameters': 'L10'}"
        }
        (Product::Cassandra, Use::Written) => "{'class': 'SizeTieredCompactionStrategy'}",
        (Product::Cassandra, Use::Read) => "{'class': 'LeveledCompactionStrategy'}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(product: Product, version: &str, has_tablets: bool) -> Server {
        Server { product, version: version.into(), has_tablets }
    }

    #[test]
    fn each_product_gets_its_own_options() {
        let config = CqlConfig::new(vec!["127.0.0.1:9042".into()], "antiphon".into());
        let text = |server: &Server| {
            let keyspaces = keyspaces(&config, server, &["east".into(), "west".into()]);
            keyspaces.into_iter().chain(steps(&config, server).concat()).collect::<Vec<_>>().join("\n")
        };
        let scylla = text(&server(Product::ScyllaDb, "2026.1.0", true));
        assert!(scylla.contains("IncrementalCompactionStrategy") && scylla.contains("'enabled': false"));
        assert!(scylla.contains("'east': 3, 'west': 3"));
        let cassandra = text(&server(Product::Cassandra, "5.0.5", false));
        assert!(cassandra.contains("UnifiedCompactionStrategy") && !cassandra.contains("tablets"));
        assert!(!text(&server(Product::Cassandra, "4.1.3", false)).contains("Unified"));
    }

    #[test]
    fn there_is_a_step_for_each_version() {
        let config = CqlConfig::new(Vec::new(), "antiphon".into());
        assert_eq!(steps(&config, &server(Product::Cassandra, "5.0.5", false)).len(), VERSION as usize);
    }
}
