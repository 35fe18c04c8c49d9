//! `antiphon check-config`: reads what `serve` would read, and starts nothing.

use crate::{cli::Serve, command::serve, failure::Failure};

pub(crate) fn run(check: &Serve) -> Result<(), Failure> {
    let config = serve::load(check)?;
    config.check()?;
    println!("the configuration is usable: {} shards, clients at {}", config.shards, config.listen);
    Ok(())
}
