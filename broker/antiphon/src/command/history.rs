//! `antiphon history`: past events, or messages as they stand, page by page.

use std::io::{self, Write as _};

use antiphon_sdk::{Client, Direction, Event, Message, Range};
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
            for event in newest(&client, &history, n).await?.iter().rev() {
                print_event(event, history.json)?;
            }
        }
        (false, None) => forward(&client, &history).await?,
    }
    client.close().await;
    Ok(())
}

async fn forward(client: &Client, history: &History) -> Result<(), Failure> {
    let mut next = Some(first(history, Direction::Forward));
    while let Some(range) = next {
        let page = client.history(range.clone()).await?;
        for event in &page.events {
            print_event(event, history.json)?;
        }
        next = page.next.map(|seq| following(range, seq));
    }
    Ok(())
}

/// The newest `n` events, newest first.
async fn newest(client: &Client, history: &History, n: u32) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    let mut next = Some(first(history, Direction::Backward));
    while let (Some(mut range), true) = (next.take(), events.len() < n as usize) {
        range.limit = n - events.len() as u32;
        let page = client.history(range.clone()).await?;
        events.extend(page.events);
        next = page.next.map(|seq| following(range, seq));
    }
    Ok(events)
}

/// The first page that is asked for.
fn first(history: &History, direction: Direction) -> Range {
    let at_ms = history.at.unwrap_or_default();
    Range { from: history.from, direction, at_ms, ..Range::all(history.log.clone()) }
}

/// The page after one that said to go on at `seq`.
fn following(range: Range, seq: u64) -> Range {
    match range.direction {
        Direction::Forward => Range { from: seq, at_ms: 0, ..range },
        Direction::Backward => Range { to: seq, at_ms: 0, ..range },
    }
}

/// Messages from `from` on, or the newest `last`, oldest first.
async fn messages(client: &Client, history: &History, last: Option<u32>) -> Result<Vec<Message>, Failure> {
    let wanted = last.map_or(usize::MAX, |n| n as usize);
    let direction = if last.is_some() { Direction::Backward } else { Direction::Forward };
    let mut messages = Vec::new();
    let mut next = Some(first(history, direction));
    while let (Some(mut range), true) = (next.take(), messages.len() < wanted) {
        range.limit = u32::try_from(wanted - messages.len()).unwrap_or(0);
        let page = client.messages(range.clone()).await?;
        messages.extend(page.messages);
        next = page.next.map(|seq| following(range, seq));
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
