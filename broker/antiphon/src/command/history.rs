//! `antiphon history`: past events, or messages as they stand, page by page.

use std::io::{self, Write as _};

use antiphon_sdk::{Client, Direction, Event, LogName, Message, Range};
use serde_json::Value;

use super::{event_line, message_line};
use crate::{cli::History, connect::connect, failure::Failure};

pub(crate) async fn run(history: History) -> Result<(), Failure> {
    let client = connect(&history.connection, "history").await?;
    match (history.messages, history.last) {
        (true, last) => {
            for message in messages(&client, &history, last).await? {
                print(history.json, || message_line::text(&message), || message_line::json(&message))?;
            }
        }
        (false, Some(n)) => {
            for event in newest(&client, &history.log, n).await?.iter().rev() {
                print_event(event, history.json)?;
            }
        }
        (false, None) => forward(&client, &history).await?,
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
            print_event(event, history.json)?;
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

/// Messages from `from` on, or the newest `last`, oldest first.
async fn messages(client: &Client, history: &History, last: Option<u32>) -> Result<Vec<Message>, Failure> {
    let wanted = last.map_or(usize::MAX, |n| n as usize);
    let direction = if last.is_some() { Direction::Backward } else { Direction::Forward };
    let mut range = Range { log: history.log.clone(), from: history.from, to: 0, limit: 0, direction };
    let mut messages = Vec::new();
    while messages.len() < wanted {
        range.limit = u32::try_from(wanted - messages.len()).unwrap_or(0);
        let page = client.messages(range.clone()).await?;
        messages.extend(page.messages);
        match (page.next, direction) {
            (None, _) => break,
            (Some(next), Direction::Forward) => range.from = next,
            (Some(next), Direction::Backward) => range.to = next,
        }
    }
    if direction == Direction::Backward {
        messages.reverse();
    }
    Ok(messages)
}

fn print_event(event: &Event, as_json: bool) -> Result<(), Failure> {
    print(as_json, || event_line::text(event), || event_line::json(event))
}

fn print(as_json: bool, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), Failure> {
    let line = if as_json { json().to_string() } else { text() };
    writeln!(io::stdout(), "{line}").map_err(Failure::Output)
}
