//! `antiphon backup`: asks the running broker to copy its store.

use hyper::Method;
use serde_json::json;

use crate::{
    admin::{Question, ask},
    cli::Backup,
    failure::Failure,
};

pub(crate) async fn run(backup: Backup) -> Result<(), Failure> {
    let to = std::path::absolute(&backup.to).map_err(|source| Failure::File { path: backup.to.clone(), source })?;
    let body = Some(json!({ "path": to }));
    let report = ask(&backup.connection, Question { method: Method::POST, target: "/admin/backup", body }).await?;
    println!("{} files, {} bytes in {}", report["files"], report["bytes"], to.display());
    Ok(())
}
