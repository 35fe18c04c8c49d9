//! `antiphon schema`: the tables of a store on a cluster.

use antiphon_server::config::{Config, Overrides, StoreSettings};
use antiphon_storage_cql::{
    CqlConfig,
    schema::{self, VERSION},
};

use crate::{
    cli::{Schema, SchemaAction},
    failure::Failure,
};

pub(crate) fn run(command: &Schema) -> Result<(), Failure> {
    let config = Config::load(command.config.as_deref(), std::env::vars(), Overrides::default(), 1)?;
    let StoreSettings::Cql(settings) = &config.store else {
        return Err(Failure::Argument {
            argument: "store.engine",
            problem: "the embedded store has no schema; set it to \"scylla\" or \"cassandra\"".into(),
        });
    };
    let store = settings.store_config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        match command.action {
            SchemaAction::Apply => apply(&store).await,
            SchemaAction::Show => show(&store).await,
            SchemaAction::Check => check(&store).await,
        }
    })
}

async fn apply(store: &CqlConfig) -> Result<(), Failure> {
    let found = schema::apply(store).await?;
    match found.version {
        Some(VERSION) => println!("keyspace `{}` has version {VERSION} already ({})", store.keyspace, found.server),
        Some(before) => {
            println!("keyspace `{}`: version {before} -> {VERSION} ({})", store.keyspace, found.server);
        }
        None => println!("keyspace `{}`: made, version {VERSION} ({})", store.keyspace, found.server),
    }
    Ok(())
}

async fn show(store: &CqlConfig) -> Result<(), Failure> {
    let (found, datacenters) = schema::show(store).await?;
    println!("-- {}", found.server);
    match found.version {
        Some(version) => println!("-- keyspace `{}` has version {version} of {VERSION}", store.keyspace),
        None => println!("-- keyspace `{}` has no schema; `antiphon schema apply` runs these", store.keyspace),
    }
    for statement in schema::statements(store, &found.server, &datacenters) {
        println!("{statement};");
    }
    Ok(())
}

async fn check(store: &CqlConfig) -> Result<(), Failure> {
    let (found, weak) = schema::check(store).await?;
    println!("keyspace `{}` has version {VERSION} ({})", store.keyspace, found.server);
    let mut refused = 0;
    for (downgrade, what) in weak {
        let is_accepted = store.accepted.contains(&downgrade);
        refused += usize::from(!is_accepted);
        println!("{}: {what} ({})", if is_accepted { "accepted" } else { "refused" }, downgrade.name());
    }
    if refused == 0 { Ok(()) } else { Err(Failure::Weak(refused)) }
}
