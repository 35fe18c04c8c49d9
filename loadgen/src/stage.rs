//! Setting up a run: conversations with their members, and one connected session per member.

use std::sync::Arc;

use antiphon_sdk::{Client, Endpoint, Error, Event, From, InvalidId, LogName, NewConversation, Range, Role};
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};

use crate::{
    merge::Group,
    names::{Names, Seat},
    recorder::Recorder,
    session::Member,
    target::Target,
};

/// Sessions that share one UDP socket. A broker tells new connections apart by their socket when it spreads them over
/// its shards, so a few per socket spread well, and thousands of sessions need only hundreds of descriptors.
const SESSIONS_PER_ENDPOINT: usize = 16;
/// Sessions that are being made at the same time.
const CONNECTING_MAX: usize = 64;
/// Members that one request names.
const MEMBERS_PER_REQUEST: usize = 200;
/// Rows of one page of history.
const PAGE_ROWS: u32 = 1_000;

/// Why a run cannot be set up or ended.
#[derive(Debug, Error)]
pub enum StageError {
    /// Names are made from short parts; this cannot happen with a sane prefix.
    #[error("a name of the run is not allowed")]
    Name(#[from] InvalidId),
    /// A session could not be made.
    #[error("session {user} could not be made")]
    Session {
        /// Whose.
        user: String,
        /// Why.
        source: Error,
    },
    /// A conversation could not be made.
    #[error("conversation {conversation} could not be made")]
    Conversation {
        /// Which.
        conversation: String,
        /// Why.
        source: Error,
    },
    /// A final history could not be read.
    #[error("the history of {log} could not be read")]
    History {
        /// Which log.
        log: LogName,
        /// Why.
        source: Error,
    },
    /// A task of the generator ended by itself.
    #[error("a task of the load generator failed")]
    Task(#[from] JoinError),
}

/// Makes the conversations of all groups.
pub async fn create_conversations(service: &Client, groups: &[Group], names: &Names) -> Result<(), StageError> {
    for (index, group) in (0..).zip(groups) {
        let users: Result<Vec<_>, _> =
            (0..group.members).map(|member| names.user(Seat { group: index, member })).collect();
        let users = users?;
        let id = names.conversation(index)?;
        let failed = |source| StageError::Conversation { conversation: id.to_string(), source };
        let (creator, others) =
            users.split_first().map_or((None, users.as_slice()), |(first, rest)| (Some(first), rest));
        let mut requests = others.chunks(MEMBERS_PER_REQUEST);
        let first = requests.next().unwrap_or_default().iter().cloned();
        let conversation = NewConversation { act_as: creator.cloned(), ..NewConversation::group(id.clone(), first) };
        service.create_conversation(conversation).await.map_err(failed)?;
        for more in requests {
            let members = more.iter().map(|user| (user.clone(), Role::Member));
            service.add_members(&id, members).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Connects and subscribes every member of every group, in the order of their numbers. Also gives the sockets in use.
pub async fn connect_members(
    target: &Arc<Target>,
    groups: &[Group],
    recorder: &Arc<Recorder>,
    mut connected: impl FnMut(),
) -> Result<(Vec<Member>, Vec<Endpoint>), StageError> {
    let seats = (0..).zip(groups).flat_map(|(group, of)| (0..of.members).map(move |member| Seat { group, member }));
    let seats: Vec<Seat> = seats.collect();
    let (mut members, mut endpoints) = (Vec::with_capacity(seats.len()), Vec::new());
    let mut joining = JoinSet::new();
    for (index, &seat) in seats.iter().enumerate() {
        // Neighbours sit in the same group: taking sockets in turn spreads them.
        let sockets = seats.len().div_ceil(SESSIONS_PER_ENDPOINT);
        if endpoints.len() < sockets {
            let user = recorder.names().user(seat)?.to_string();
            endpoints.push(target.endpoint().map_err(|source| StageError::Session { user, source: *source })?);
        }
        let endpoint = endpoints[index % sockets].clone();
        if joining.len() >= CONNECTING_MAX
            && let Some(member) = joining.join_next().await
        {
            members.push(member??);
            connected();
        }
        joining.spawn(join(target.clone(), (seat, index), endpoint, recorder.clone()));
    }
    while let Some(member) = joining.join_next().await {
        members.push(member??);
        connected();
    }
    members.sort_by_key(|member: &Member| member.seat);
    Ok((members, endpoints))
}

async fn join(
    target: Arc<Target>,
    (seat, session): (Seat, usize),
    endpoint: Endpoint,
    recorder: Arc<Recorder>,
) -> Result<Member, StageError> {
    let user = recorder.names().user(seat)?.to_string();
    let log = LogName::Conversation(recorder.names().conversation(seat.group)?);
    let session = async {
        let client = target.connect(&user, endpoint, session).await?;
        let invoked = recorder.now();
        let events = client.subscribe(&log, From::Start).await?;
        recorder.subscribed(seat, invoked, events.attached().head.seq);
        Ok((client, events))
    };
    let (client, events) = session.await.map_err(|source| StageError::Session { user, source })?;
    Ok(Member { seat, client, events, log })
}

/// Reads the whole history of every group's log into the book.
pub async fn read_histories(service: &Client, groups: usize, recorder: &Recorder) -> Result<(), StageError> {
    for group in 0..groups as u32 {
        let log = LogName::Conversation(recorder.names().conversation(group)?);
        let events = history(service, &log).await?;
        recorder.history(group, events.iter().map(|event| recorder.row(event)).collect());
    }
    Ok(())
}

/// The whole history of a log, page by page.
pub async fn history(service: &Client, log: &LogName) -> Result<Vec<Event>, StageError> {
    let mut events = Vec::new();
    let mut from = Some(1);
    while let Some(first) = from {
        let range = Range { from: first, limit: PAGE_ROWS, ..Range::all(log.clone()) };
        let page = service.history(range).await;
        let page = page.map_err(|source| StageError::History { log: log.clone(), source })?;
        events.extend(page.events);
        from = page.next;
    }
    Ok(events)
}
