//! A chat in the terminal: every line typed is sent, every event is printed.
//!
//! ```sh
//! ANTIPHON_TOKEN=... cargo run -p antiphon-sdk --example chat -- 127.0.0.1:7400 <fingerprint> c:lobby
//! ```

use std::{error::Error, io::BufRead};

use antiphon_sdk::{Client, Config, From, Item, LogName, Trust};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, fingerprint, log] = &arguments[..] else {
        return Err("usage: chat <address> <certificate fingerprint> <log>".into());
    };
    let token = std::env::var("ANTIPHON_TOKEN")?;
    let config = Config::new(address.parse()?, "localhost", Trust::fingerprint(fingerprint)?, token);
    let client = Client::connect(config).await?;
    let log: LogName = log.parse()?;
    let mut events = client.subscribe(&log, From::Last(20)).await?;
    let mut lines = lines_of_stdin();
    loop {
        tokio::select! {
            item = events.next() => match item {
                Some(item) => print(&item),
                None => return Ok(()),
            },
            line = lines.recv() => match line {
                Some(line) => drop(client.send(&log, line).await?),
                None => {
                    client.close().await;
                    return Ok(());
                }
            },
        }
    }
}

fn print(item: &Item) {
    match item {
        Item::Event(event) => match event.text() {
            Some(text) => println!("{:>6} {}: {text}", event.seq(), event.sender()),
            None => println!("{:>6} {} {}", event.seq(), event.sender(), event.kind().name()),
        },
        Item::Reset { reason, .. } => println!("-- history begins anew: {reason:?}"),
        Item::Detached(reason) => println!("-- no longer following: {reason:?}"),
        Item::Attached(_) | Item::Skipped { .. } | Item::Cursor(_) | Item::Signal(_) => {}
    }
}

/// Standard input blocks, so a thread of its own reads it.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (to_chat, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if to_chat.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
