//! An inbox in the terminal: one's conversations with what is unread in each, and who is there, until interrupted.
//!
//! ```sh
//! ANTIPHON_TOKEN=... cargo run -p antiphon-sdk --example inbox -- 127.0.0.1:7400 <fingerprint> [user to watch]...
//! ```

use std::{collections::BTreeMap, error::Error};

use antiphon_sdk::{Client, Config, ConnectionState, ConversationId, Digest, InboxEntry, LogName, Trust, UserId};
use tokio::sync::broadcast::error::RecvError;

type Inbox = BTreeMap<ConversationId, InboxEntry>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, fingerprint, watched @ ..] = &arguments[..] else {
        return Err("usage: inbox <address> <certificate fingerprint> [user]...".into());
    };
    let token = std::env::var("ANTIPHON_TOKEN")?;
    let mut config = Config::new(address.parse()?, "localhost", Trust::fingerprint(fingerprint)?, token);
    // Digests of every conversation, without following each one.
    config.follow_mine = true;
    let client = Client::connect(config).await?;
    let (mut digests, mut presences) = (client.digests(), client.presences());
    let mut connection = client.connection_state();
    let watched: Vec<UserId> = watched.iter().map(|user| user.parse()).collect::<Result<_, _>>()?;
    client.watch_presence(watched).await?;
    let mut inbox = read(&client).await?;
    loop {
        show(&inbox);
        tokio::select! {
            digest = digests.recv() => match digest {
                Ok(digest) if apply(&mut inbox, &client, &digest) => {}
                // A conversation that is new here, or digests that were missed: the list is the whole truth.
                Ok(_) | Err(RecvError::Lagged(_)) => inbox = read(&client).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
            changed = presences.changed() => {
                changed?;
                for presence in presences.borrow_and_update().values() {
                    println!("{} is {} {}", presence.user, presence.status, presence.text);
                }
            }
            changed = connection.changed() => {
                changed?;
                let state = connection.borrow_and_update().clone();
                match state {
                    // Digests are lost with the connection.
                    ConnectionState::Ready(_) => inbox = read(&client).await?,
                    ConnectionState::Stopped(reason) => return Err(reason.into()),
                    ConnectionState::Connecting | ConnectionState::Waiting { .. } => {}
                }
            }
        }
    }
}

/// The whole list, page by page.
async fn read(client: &Client) -> antiphon_sdk::Result<Inbox> {
    let (mut inbox, mut after) = (Inbox::new(), None);
    loop {
        let page = client.inbox(after.as_ref()).await?;
        inbox.extend(page.entries.into_iter().map(|entry| (entry.id.clone(), entry)));
        after = page.next;
        if after.is_none() {
            return Ok(inbox);
        }
    }
}

/// False if the conversation is not in the list, or nothing was known of it.
fn apply(inbox: &mut Inbox, client: &Client, digest: &Digest) -> bool {
    let ConnectionState::Ready(session) = client.state() else { return true };
    let LogName::Conversation(id) = &digest.log else { return true };
    let Some(Ok(overview)) = inbox.get_mut(id).map(|entry| entry.overview.as_mut()) else { return false };
    overview.apply(digest, &session.user);
    true
}

fn show(inbox: &Inbox) {
    for entry in inbox.values() {
        let marks = [(entry.pinned, "*"), (entry.muted, "-")].map(|(set, mark)| if set { mark } else { " " }).concat();
        match &entry.overview {
            Ok(overview) => {
                let last = overview.last.as_ref();
                let text = last.map(|last| format!("{}: {}", last.sender, last.text().unwrap_or_default()));
                println!("{marks} {:>4} {} {}", overview.unread(), entry.id, text.unwrap_or_default());
            }
            Err(refusal) => println!("{marks}    ? {} {refusal}", entry.id),
        }
    }
    println!();
}
