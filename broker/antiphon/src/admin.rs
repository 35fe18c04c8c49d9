//! Commands that ask the running broker through its admin listener, with the token of its data directory.

use std::net::SocketAddr;

use antiphon_server::identity::read_admin_token;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{cli::AdminConnection, failure::Failure, running::Running};

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) body: Option<Value>,
}

/// Asks, and waits for the answer. A refusal is a failure with the listener's own words.
pub(crate) async fn ask(connection: &AdminConnection, question: Question<'_>) -> Result<Value, Failure> {
    let data = &connection.data.data;
    let admin = match connection.admin {
        Some(admin) => admin,
        None => Running::read(data)?.admin,
    };
    let token = read_admin_token(data)?;
    let failed = |problem: String| Failure::Admin { address: admin.to_string(), problem };
    match exchange(admin, token.reveal(), question).await.map_err(|error| failed(error.to_string()))? {
        (true, answer) => Ok(answer),
        (false, error) => Err(failed(error["message"].as_str().unwrap_or("it refused").to_owned())),
    }
}

type ExchangeError = Box<dyn std::error::Error + Send + Sync>;

/// Whether it succeeded, and what was answered.
async fn exchange(admin: SocketAddr, token: &str, question: Question<'_>) -> Result<(bool, Value), ExchangeError> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the one answer; an error on it shows there too.
    let driver = tokio::spawn(connection);
    let body = question.body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(question.method)
        .uri(question.target)
        .header(header::HOST, admin.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let is_success = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    driver.abort();
    Ok((is_success, serde_json::from_slice(&body)?))
}
