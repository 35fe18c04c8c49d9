//! `antiphon pub`: one message, stored before the command ends.

use crate::{cli::Pub, connect::connect, failure::Failure};

pub(crate) async fn run(publish: Pub) -> Result<(), Failure> {
    let client = connect(&publish.connection, "pub").await?;
    let sent = client.send(&publish.log, publish.text).await?;
    println!("{}", sent.position);
    client.close().await;
    Ok(())
}
