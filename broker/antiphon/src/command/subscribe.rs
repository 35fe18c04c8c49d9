//! `antiphon sub`: the events of a log, each once and in order, across restarts of the broker.

use std::io::{self, Write as _};

use antiphon_sdk::{From, Item, Range};

use super::event_line;
use crate::{cli::Sub, connect::connect, failure::Failure};

pub(crate) async fn run(sub: Sub) -> Result<(), Failure> {
    let client = connect(&sub.connection, "sub").await?;
    let from = match (sub.from, sub.last) {
        (Some(0), _) => From::Start,
        (Some(seq), _) => {
            // A position needs its epoch, which any page of the log tells.
            let log = sub.log.clone();
            let range = Range { from: seq, limit: 1, ..Range::all(log) };
            let epoch = client.history(range).await?.head.epoch;
            From::Position(antiphon_sdk::Position { epoch, seq })
        }
        (None, Some(n)) => From::Last(n),
        (None, None) => From::Tail,
    };
    let mut events = client.subscribe(&sub.log, from).await?;
    let mut left = sub.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(item) = events.next().await else { break };
        match item {
            Item::Event(event) => {
                let line = if sub.json { event_line::json(&event).to_string() } else { event_line::text(&event) };
                writeln!(io::stdout(), "{line}").map_err(Failure::Output)?;
                left -= 1;
            }
            Item::Reset { reason, after } => {
                eprintln!("antiphon: the log's history changed ({reason:?}); going on after {after}");
            }
            Item::Detached(reason) => return Err(Failure::Detached(format!("{reason:?}"))),
            Item::Attached(_) | Item::Skipped { .. } | Item::Cursor(_) | Item::Signal(_) => {}
        }
    }
    client.close().await;
    Ok(())
}
