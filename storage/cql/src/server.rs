//! What answers at the other end, and whether it can keep our promises.

use std::{fmt, sync::Arc, time::Duration};

use scylla::{
    client::session::Session,
    cluster::Node,
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::unprepared::Statement,
};

use crate::{
    config::{CqlConfig, Downgrade},
    error::CqlError,
    query::first_row,
    uptime,
};

/// A clock that is further off is no good.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// ScyllaDB.
    ScyllaDb,
    /// Apache Cassandra.
    Cassandra,
}

/// A cluster's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Whose they are.
    pub product: Product,
    /// What they say of their version.
    pub version: String,
    /// Whether they divide tables into tablets.
    pub has_tablets: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.product {
            Product::ScyllaDb => "ScyllaDB",
            Product::Cassandra => "Apache Cassandra",
        };
        write!(f, "{name} {}", self.version)
    }
}

impl Server {
    /// Asks who is there.
    pub(crate) async fn detect(session: &Session) -> Result<Self, CqlError> {
        let versions =
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = 'versions'";
        let found: Option<(String,)> = first_row(session, "asking the server for its version", versions, ()).await?;
        if found.is_some() {
            let version = text(session, "SELECT version FROM system.versions WHERE key = 'local'", None).await?;
            let features = text(session, "SELECT supported_features FROM system.local WHERE key = 'local'", None).await;
            let has_tablets = features.is_ok_and(|features| features.unwrap_or_default().contains("TABLETS"));
            return Ok(Self { product: Product::ScyllaDb, version: version.unwrap_or_default(), has_tablets });
        }
        let version = text(session, "SELECT release_version FROM system.local WHERE key = 'local'", None).await?;
        Ok(Self { product: Product::Cassandra, version: version.unwrap_or_default(), has_tablets: false })
    }

    /// What speaks against keeping messages there: each with what it weakens.
    pub(crate) async fn examine(
        &self,
        session: &Session,
        config: &CqlConfig,
    ) -> Result<Vec<(Downgrade, String)>, CqlError> {
        let mut found = Vec::new();
        for node in session.get_cluster_state().get_nodes_info() {
            let address = node.address;
            match self.commitlog_sync(session, node).await {
                Ok(Some(sync)) if sync == "batch" || sync == "group" => {}
                Ok(Some(sync)) => {
                    let what = format!(
                        "{self} at {address} acknowledges writes before they are on disk (commitlog_sync: {sync}); set it to batch"
                    );
                    found.push((Downgrade::PeriodicCommitlog, what));
                }
                // A node that is down says nothing, and is asked at the next start.
                Err(CqlError::Statement { .. }) if !node.is_connected() => {}
                Ok(None) | Err(_) => {
                    let what = format!("{self} at {address} does not say what its commitlog_sync is");
                    found.push((Downgrade::UnknownServer, what));
                }
            }
        }
        found.extend(self.skew(session).await?.map(|what| (Downgrade::ClockSkew, what)));
        found.extend(self.replication(session, config).await?.map(|what| (Downgrade::LowReplication, what)));
        Ok(found)
    }

    async fn commitlog_sync(&self, session: &Session, node: &Arc<Node>) -> Result<Option<String>, CqlError> {
        let query = match self.product {
            Product::ScyllaDb => "SELECT value FROM system.config WHERE name = 'commitlog_sync'",
            Product::Cassandra => "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'",
        };
        let value = text(session, query, Some(node)).await?;
        Ok(value.map(|value| value.trim_matches('"').to_ascii_lowercase()))
    }

    async fn skew(&self, session: &Session) -> Result<Option<String>, CqlError> {
        let doing = "asking the server for its time";
        let before = uptime::wall_us();
        let now = "SELECT toUnixTimestamp(now()) FROM system.local WHERE key = 'local'";
        let row: Option<(i64,)> = first_row(session, doing, now, ()).await?;
        let after = uptime::wall_us();
        let (theirs_ms,) = row.ok_or_else(|| CqlError::statement(doing, "it does not say"))?;
        let off_us = (theirs_ms * 1_000 - before / 2 - after / 2).unsigned_abs();
        let is_off = off_us > SKEW_MAX.as_micros() as u64 + (after - before).unsigned_abs();
        Ok(is_off.then(|| format!("the clocks of {self} and of this machine are {} s apart", off_us / 1_000_000)))
    }

    async fn replication(&self, session: &Session, config: &CqlConfig) -> Result<Option<String>, CqlError> {
        let state = session.get_cluster_state();
        let Some(keyspace) = state.get_keyspace(&config.keyspace) else { return Ok(None) };
        let copies = copies(&keyspace.strategy);
        Ok((copies < 3).then(|| format!("keyspace `{}` keeps {copies} of 3 copies", config.keyspace)))
    }
}

fn copies(strategy: &scylla::cluster::metadata::Strategy) -> usize {
    use scylla::cluster::metadata::Strategy;
    match strategy {
        Strategy::SimpleStrategy { replication_factor } => *replication_factor,
        Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
            datacenter_repfactors.values().copied().min().unwrap_or(0)
        }
        _ => 0,
    }
}

/// The one text that a query answers, if it answers any; from one node where it matters which.
async fn text(session: &Session, query: &str, node: Option<&Arc<Node>>) -> Result<Option<String>, CqlError> {
    let mut statement = Statement::new(query);
    if let Some(node) = node {
        let target = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None);
        statement.set_load_balancing_policy(Some(target));
    }
    statement.set_consistency(scylla::statement::Consistency::One);
    let row: Option<(Option<String>,)> =
        first_row(session, "asking the server for its settings", statement, ()).await?;
    Ok(row.and_then(|(text,)| text))
}
