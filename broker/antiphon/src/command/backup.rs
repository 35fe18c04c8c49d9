//! `antiphon backup`: asks the running broker to copy its store.

use std::{net::SocketAddr, path::Path};

use antiphon_server::identity::read_admin_token;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{cli::Backup, failure::Failure, running::Running};

pub(crate) async fn run(backup: Backup) -> Result<(), Failure> {
    let data = &backup.data.data;
    let admin = match backup.admin {
        Some(admin) => admin,
        None => Running::read(data)?.admin,
    };
    let to = std::path::absolute(&backup.to).map_err(|source| Failure::File { path: backup.to.clone(), source })?;
    let token = read_admin_token(data)?;
    let failed = |problem: String| Failure::Admin { address: admin.to_string(), problem };
    let answer = ask(admin, token.reveal(), &to).await.map_err(|error| failed(error.to_string()))?;
    match answer {
        (true, report) => {
            println!("{} files, {} bytes in {}", report["files"], report["bytes"], to.display());
            Ok(())
        }
        (false, error) => Err(failed(error["message"].as_str().unwrap_or("no backup was made").to_owned())),
    }
}

type AskError = Box<dyn std::error::Error + Send + Sync>;

/// Posts the order and waits for its end. Whether it succeeded, and what was answered.
async fn ask(admin: SocketAddr, token: &str, to: &Path) -> Result<(bool, Value), AskError> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the one answer; an error on it shows there too.
    let driver = tokio::spawn(connection);
    let request = Request::post("/admin/backup")
        .header(header::HOST, admin.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json!({ "path": to }).to_string())))?;
    let response = sender.send_request(request).await?;
    let is_success = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    driver.abort();
    Ok((is_success, serde_json::from_slice(&body)?))
}
