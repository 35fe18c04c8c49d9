//! Connecting to the cluster.

use std::{num::NonZeroUsize, time::Duration};

use scylla::{
    client::{PoolSize, execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    policies::load_balancing::DefaultPolicy,
    statement::{Consistency as Level, SerialConsistency},
};

use crate::{
    config::{Consistency, CqlConfig},
    error::CqlError,
    refusal,
};

/// Connections to each node, or to each shard of a ScyllaDB node.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a session.
pub(crate) async fn connect(config: &CqlConfig) -> Result<Session, CqlError> {
    if config.contact_points.is_empty() {
        return Err(CqlError::Config("a store on a cluster needs at least one contact point".into()));
    }
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &config.datacenter {
        policy = policy.prefer_datacenter(datacenter.clone()).permit_dc_failover(false);
    }
    let (level, serial) = levels(config.consistency);
    let profile = ExecutionProfile::builder()
        .consistency(level)
        .serial_consistency(Some(serial))
        .request_timeout(Some(config.request_timeout))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerShard(CONNECTIONS))
        .connection_timeout(CONNECT_TIMEOUT)
        .fetch_schema_metadata(true)
        .keepalive_interval(Duration::from_secs(5))
        .keepalive_timeout(Duration::from_secs(5));
    if let Some(credentials) = &config.credentials {
        builder = builder.user(&credentials.user, &credentials.password);
    }
    builder = with_tls(builder, config)?;
    match builder.build().await {
        Ok(session) => Ok(session),
        Err(error) => Err(refusal::explain(config, error).await),
    }
}

#[cfg(feature = "tls")]
fn with_tls(builder: SessionBuilder, config: &CqlConfig) -> Result<SessionBuilder, CqlError> {
    Ok(builder.tls_context(config.tls.clone()))
}

#[cfg(not(feature = "tls"))]
fn with_tls(builder: SessionBuilder, config: &CqlConfig) -> Result<SessionBuilder, CqlError> {
    match config.tls {
        None => Ok(builder),
        Some(_) => Err(CqlError::Config("store.tls: this program was built without TLS towards the cluster".into())),
    }
}

pub(crate) fn levels(consistency: Consistency) -> (Level, SerialConsistency) {
    match consistency {
        Consistency::Quorum => (Level::Quorum, SerialConsistency::Serial),
        Consistency::LocalQuorum => (Level::LocalQuorum, SerialConsistency::LocalSerial),
    }
}
