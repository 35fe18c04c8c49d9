//! From the command line to a client of the broker.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_sdk::{Client, Config, TokenProvider, Trust};
use antiphon_server::{auth::TokenRequest, identity, identity::Identity};

use crate::{cli::Connection, failure::Failure, running::Running};

/// Connects as the command line says.
pub(crate) async fn connect(connection: &Connection, command: &str) -> Result<Client, Failure> {
    connect_as(connection, command, |_| {}).await
}

/// Connects as the command line says; a development token is what `change` makes of it.
pub(crate) async fn connect_as(
    connection: &Connection,
    command: &str,
    change: impl FnOnce(&mut TokenRequest),
) -> Result<Client, Failure> {
    let running = Running::read(&connection.data.data);
    let address = match (&connection.address, &running) {
        (Some(address), _) => *address,
        (None, Ok(running)) => running.address,
        (None, Err(_)) => running?.address,
    };
    let trust = match (&connection.ca, &connection.fingerprint) {
        (Some(path), _) => {
            let pem = fs::read(path).map_err(|source| Failure::File { path: path.clone(), source })?;
            Trust::pem(&pem)?
        }
        (None, Some(hex)) => Trust::fingerprint(hex.trim_start_matches("sha256:"))?,
        (None, None) => Trust::fingerprint(&Running::read(&connection.data.data)?.fingerprint)?,
    };
    let mut config = Config::new(address, connection.server_name.clone(), trust, token(connection, change)?);
    config.client_name = concat!("antiphon-cli/", env!("CARGO_PKG_VERSION")).into();
    // Each command is a device of its own, so that one does not push another out.
    let device = connection.device.clone().unwrap_or_else(|| format!("{command}-{}", std::process::id()));
    let device = device.parse().map_err(|error: antiphon_sdk::InvalidId| Failure::Argument {
        argument: "--device",
        problem: error.to_string(),
    })?;
    config.device = Some(device);
    Ok(Client::connect(config).await?)
}

/// The given token, or development tokens made as they are needed.
fn token(connection: &Connection, change: impl FnOnce(&mut TokenRequest)) -> Result<TokenProvider, Failure> {
    if let Some(token) = &connection.token {
        return Ok(TokenProvider::fixed(token.clone()));
    }
    let minter = open_identity(&connection.data.data)?.minter().clone();
    let mut request = identity::development_request(connection.user.clone());
    change(&mut request);
    Ok(TokenProvider::callback(move || {
        let token = mint(&minter, &request);
        async move { token }
    }))
}

/// The secrets of a data directory on which a broker has run.
pub(crate) fn open_identity(data: &Path) -> Result<Identity, Failure> {
    if !data.join("secrets").is_dir() {
        return Err(Failure::NoData(data.to_owned()));
    }
    Ok(Identity::load_or_create(data)?)
}

/// A token of this moment.
pub(crate) fn mint(
    minter: &antiphon_server::auth::Minter,
    request: &TokenRequest,
) -> Result<String, antiphon_server::auth::MintError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    minter.mint(request, u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
