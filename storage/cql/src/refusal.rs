//! Why no session could be opened: what an operator has to mend, told apart from what may pass by itself.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, Error as TlsError, RootCertStore, Stream, pki_types::ServerName};
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind as SetupError, DbError, MetadataError,
    NewSessionError,
};

use crate::{config::CqlConfig, error::CqlError};

/// Of each step of asking a node whether it speaks TLS.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How Cassandra begins to say that too few nodes answered it about a user. The protocol has no number of its own for that.
const NOBODY_KNOWS: &str = "Unable to perform authentication";

/// What the driver's error means.
pub(crate) async fn explain(config: &CqlConfig, error: NewSessionError) -> CqlError {
    let points = config.contact_points.join(", ");
    let last = match error {
        NewSessionError::FailedToResolveAnyHostname(_) => {
            return CqlError::Config(format!("store.contact_points: nobody knows the name of any of {points}"));
        }
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error,
        })) => last_connection_error,
        other => return CqlError::Unreachable { contact_points: points, reason: in_one_line(&other.to_string()) },
    };
    if let Some(reason) = refused_credentials(&last) {
        let user = config.credentials.as_ref().map_or("(none)", |credentials| &credentials.user);
        return CqlError::Credentials { user: user.to_owned(), reason };
    }
    match tls_reason(&last) {
        Some(reason) => CqlError::Tls { contact_points: points, reason },
        None if config.tls.is_none() && was_cut(&last) && any_speaks_tls(config).await => {
            CqlError::Tls { contact_points: points, reason: "it is spoken there; set `store.tls_ca`".to_owned() }
        }
        None => CqlError::Unreachable { contact_points: points, reason: in_one_line(&last.to_string()) },
    }
}

fn refused_credentials(error: &ConnectionError) -> Option<String> {
    let ConnectionError::ConnectionSetupRequestError(error) = error else { return None };
    match error.get_error() {
        SetupError::MissingAuthentication => Some("it asks for a user and a password".to_owned()),
        SetupError::DbError(DbError::AuthenticationError, said) if !said.starts_with(NOBODY_KNOWS) => {
            Some(in_one_line(said))
        }
        _ => None,
    }
}

/// What is wrong with TLS, if it is that.
fn tls_reason(error: &ConnectionError) -> Option<String> {
    let ConnectionError::IoError(error) = error else { return None };
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::InvalidCertificate(what) => {
            Some(format!("the certificate there does not lead to a root of `store.tls_ca` ({what})"))
        }
        TlsError::InvalidMessage(_) => Some("it is not spoken there; leave `store.tls_ca` away".to_owned()),
        other => Some(other.to_string()),
    }
}

/// Whether there was a connection, which then ended without an answer, as when a server expects something else.
fn was_cut(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionSetupRequestError(error) => {
            matches!(error.get_error(), SetupError::BrokenConnection(_))
        }
        other => matches!(other, ConnectionError::BrokenConnection(_)),
    }
}

async fn any_speaks_tls(config: &CqlConfig) -> bool {
    let points = config.contact_points.clone();
    let asking = tokio::task::spawn_blocking(move || points.iter().any(|point| speaks_tls(point).unwrap_or(false)));
    asking.await.unwrap_or(false)
}

/// Whether a node answers a client that speaks TLS with a certificate; nobody is trusted, so nothing more is said.
fn speaks_tls(point: &str) -> std::io::Result<bool> {
    let other = std::io::Error::other;
    let Some(address) = point.to_socket_addrs()?.next() else { return Ok(false) };
    let mut tcp = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    tcp.set_read_timeout(Some(ASK_TIMEOUT))?;
    tcp.set_write_timeout(Some(ASK_TIMEOUT))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusting_nobody = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::IpAddress(address.ip().into());
    let mut session = ClientConnection::new(Arc::new(trusting_nobody), name).map_err(other)?;
    let mut stream = Stream::new(&mut session, &mut tcp);
    let error = stream.flush().and_then(|()| stream.read(&mut [0])).err();
    let error = error.as_ref().and_then(|error| error.get_ref()?.downcast_ref::<TlsError>());
    Ok(matches!(error, Some(TlsError::InvalidCertificate(_))))
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
