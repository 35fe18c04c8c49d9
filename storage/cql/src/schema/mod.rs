//! The tables, in versions: a keyspace says which version it has, and each step leads from one to the next.
//!
//! Applying is safe to repeat and safe when several programs do it at once: every statement makes something that may be
//! there already, and the version rises under a condition once its statements are done.

mod tables;

use scylla::client::session::Session;

pub use tables::VERSION;

use crate::{
    config::{CqlConfig, Downgrade},
    connect,
    error::CqlError,
    query::{conditional, first_row},
    server::Server,
};

/// What a cluster has of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose servers these are.
    pub server: Server,
    /// The version; nothing if there is no schema.
    pub version: Option<i32>,
}

/// The statements that [`apply`] would run on a cluster of such servers, for people to read.
pub fn statements(config: &CqlConfig, server: &Server, datacenters: &[String]) -> Vec<String> {
    let keyspaces = tables::keyspaces(config, server, datacenters);
    keyspaces.into_iter().chain(tables::steps(config, server).into_iter().flatten()).collect()
}

/// Brings the schema up to this program's version. Answers with the version that was found before.
pub async fn apply(config: &CqlConfig) -> Result<Found, CqlError> {
    let (session, server) = open(config).await?;
    refuse_too_many_copies(&session, config)?;
    for statement in tables::keyspaces(config, &server, &datacenters(&session, config)) {
        run(&session, "making the keyspaces", statement).await?;
    }
    run(&session, "making the table of versions", tables::version_table(config)).await?;
    let found = version(&session, config).await?;
    refuse_newer(config, found)?;
    let steps = tables::steps(config, &server);
    for (step, statements) in steps.into_iter().enumerate().skip(found.unwrap_or(0).max(0) as usize) {
        for statement in statements {
            run(&session, "changing the schema", statement).await?;
        }
        raise(&session, config, step as i32).await?;
    }
    Ok(Found { server, version: found })
}

/// What the cluster has.
pub async fn show(config: &CqlConfig) -> Result<(Found, Vec<String>), CqlError> {
    let (session, server) = open(config).await?;
    let version = version(&session, config).await?;
    let datacenters = datacenters(&session, config);
    Ok((Found { server, version }, datacenters))
}

/// Fails unless the schema is the one that this program works with. Answers with what weakens a guarantee.
pub async fn check(config: &CqlConfig) -> Result<(Found, Vec<(Downgrade, String)>), CqlError> {
    let (session, server) = open(config).await?;
    let version = usable_version(&session, config).await?;
    let weak = server.examine(&session, config).await?;
    Ok((Found { server, version: Some(version) }, weak))
}

/// A session on the cluster, and whose servers it has.
pub(crate) async fn open(config: &CqlConfig) -> Result<(Session, Server), CqlError> {
    if !is_keyspace(&config.keyspace) {
        let keyspace = &config.keyspace;
        return Err(CqlError::Config(format!("store.keyspace: expected {KEYSPACE_EXPECTED}, not `{keyspace}`")));
    }
    let session = connect::connect(config).await?;
    let server = Server::detect(&session).await?;
    Ok((session, server))
}

/// The version, if this program can work with it.
pub(crate) async fn usable_version(session: &Session, config: &CqlConfig) -> Result<i32, CqlError> {
    let found = version(session, config).await?;
    refuse_newer(config, found)?;
    match found {
        Some(VERSION) => Ok(VERSION),
        other => Err(CqlError::SchemaMissing {
            keyspace: config.keyspace.clone(),
            found: other.map_or("has no schema".into(), |version| format!("has schema version {version} of {VERSION}")),
        }),
    }
}

/// A keyspace with more copies than nodes would be made, and then answer nobody.
fn refuse_too_many_copies(session: &Session, config: &CqlConfig) -> Result<(), CqlError> {
    let state = session.get_cluster_state();
    for datacenter in datacenters(session, config) {
        let nodes = state.get_nodes_info().iter().filter(|node| node.datacenter.as_ref() == Some(&datacenter)).count();
        if nodes < usize::from(config.replication_factor) {
            return Err(CqlError::Config(format!(
                "store.replication_factor: {nodes} nodes in data centre `{datacenter}` cannot keep {} copies",
                config.replication_factor
            )));
        }
    }
    Ok(())
}

fn refuse_newer(config: &CqlConfig, found: Option<i32>) -> Result<(), CqlError> {
    match found {
        Some(found) if found > VERSION => {
            Err(CqlError::SchemaNewer { keyspace: config.keyspace.clone(), found, known: VERSION })
        }
        _ => Ok(()),
    }
}

/// What a keyspace may be called: names are put into statements as they are.
pub const KEYSPACE_EXPECTED: &str = "a lower-case letter and then up to 31 of a-z, 0-9 and _";

/// Whether a keyspace may be called so; see [`KEYSPACE_EXPECTED`].
pub fn is_keyspace(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    begins_well && name.len() <= 32 && name.bytes().all(is_plain)
}

fn datacenters(session: &Session, config: &CqlConfig) -> Vec<String> {
    let state = session.get_cluster_state();
    let mut names: Vec<String> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    names.retain(|name| config.datacenter.as_ref().is_none_or(|chosen| chosen == name));
    names.sort();
    names.dedup();
    names
}

async fn run(session: &Session, doing: &'static str, statement: String) -> Result<(), CqlError> {
    session.query_unpaged(statement, &[]).await.map(drop).map_err(|error| CqlError::statement(doing, error))
}

/// The version that the keyspace says; nothing if there is none.
async fn version(session: &Session, config: &CqlConfig) -> Result<Option<i32>, CqlError> {
    let doing = "reading the schema's version";
    let coordination = config.coordination();
    let table = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
    if first_row::<(String,)>(session, doing, table, (&coordination,)).await?.is_none() {
        return Ok(None);
    }
    let query = format!("SELECT version FROM {coordination}.schema_version WHERE name = 'logs'");
    Ok(first_row(session, doing, query, ()).await?.map(|(version,)| version))
}

/// Notes that a step is done, unless somebody else has done so.
async fn raise(session: &Session, config: &CqlConfig, from: i32) -> Result<(), CqlError> {
    let table = format!("{}.schema_version", config.coordination());
    let statement = match from {
        0 => format!("INSERT INTO {table} (name, version, epoch) VALUES ('logs', 1, 1) IF NOT EXISTS"),
        _ => format!("UPDATE {table} SET version = {} WHERE name = 'logs' IF version = {from}", from + 1),
    };
    conditional(session, "noting the schema's version", statement, ()).await.map(drop)
}

/// History generation of every log in the keyspace.
pub(crate) async fn epoch(session: &Session, config: &CqlConfig) -> Result<u32, CqlError> {
    let doing = "reading the epoch";
    let query = format!("SELECT epoch FROM {}.schema_version WHERE name = 'logs'", config.coordination());
    let row: Option<(i32,)> = first_row(session, doing, query, ()).await?;
    let (epoch,) = row.ok_or_else(|| CqlError::statement(doing, "it is gone"))?;
    u32::try_from(epoch).map_err(|error| CqlError::statement(doing, error))
}
