//! `antiphon history`: past events, page by page.

use std::io::{self, Write as _};

use antiphon_sdk::{Client, Direction, Event, LogName, Range};

use super::event_line;
use crate::{cli::History, connect::connect, failure::Failure};

pub(crate) async fn run(history: History) -> Result<(), Failure> {
    let client = connect(&history.connection, "history").await?;
    match history.last {
        Some(n) => {
            for event in newest(&client, &history.log, n).await?.iter().rev() {
                print(event, history.json)?;
            }
        }
        None => forward(&client, &history).await?,
    }
    client.close().await;
    Ok(())
}

async fn forward(client: &Client, history: &History) -> Result<(), Failure> {
    let mut next = Some(history.from);
    while let Some(from) = next {
        let range = Range { log: history.log.clone(), from, to: 0, limit: 0, direction: Direction::Forward };
        let page = client.history(range).await?;
        for event in &page.events {
            print(event, history.json)?;
        }
        next = page.next;
    }
    Ok(())
}

/// The newest `n` events, newest first.
async fn newest(client: &Client, log: &LogName, n: u32) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    let mut to = Some(0);
    while let (Some(end), true) = (to, events.len() < n as usize) {
        let limit = n - events.len() as u32;
        let range = Range { log: log.clone(), from: 0, to: end, limit, direction: Direction::Backward };
        let page = client.history(range).await?;
        events.extend(page.events);
        to = page.next;
    }
    Ok(events)
}

fn print(event: &Event, as_json: bool) -> Result<(), Failure> {
    let line = if as_json { event_line::json(event).to_string() } else { event_line::text(event) };
    writeln!(io::stdout(), "{line}").map_err(Failure::Output)
}
