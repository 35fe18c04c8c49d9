//! Applications against a real broker: what a user does, what another one sees.

use antiphon_sdk::{
    Client, Config, ConnectionState, Conversation, ConversationId, Event, EventKind, From, Item, LogName,
    NewConversation, NewMessage, Notice, Preferences, PresenceStatus, Range, Refusal, RequestError, SendState,
    StopReason, Subscription, UserId,
};
use bytes::Bytes;

use crate::real::Real;

pub(crate) fn user(id: &str) -> UserId {
    id.parse().unwrap()
}

pub(crate) async fn group(creator: &Client, id: &str, members: &[&str]) -> Conversation {
    let group = NewConversation::group(id.parse().unwrap(), members.iter().map(|id| user(id)));
    creator.create_conversation(group).await.unwrap()
}

pub(crate) async fn next_event(subscription: &mut Subscription) -> Event {
    loop {
        if let Item::Event(event) = subscription.next().await.expect("the subscription goes on") {
            return event;
        }
    }
}

/// The events of a user's inbox, which say what the broker knows of the user's conversations: a little later than the
/// conversations do.
pub(crate) async fn inbox_of(client: &Client, id: &str) -> Subscription {
    client.subscribe(&LogName::Inbox(user(id)), From::Start).await.unwrap()
}

/// Waits until a watched user is shown like this.
pub(crate) async fn sees(client: &Client, whom: &str, status: PresenceStatus) -> String {
    let (whom, mut presences) = (user(whom), client.presences());
    let shown = presences.wait_for(|all| all.get(&whom).is_some_and(|presence| presence.status == status)).await;
    shown.unwrap()[&whom].text.clone()
}

#[tokio::test]
async fn the_inbox_counts_what_is_unread_and_says_what_is_ones_own() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    let tea = group(&ann, "tea", &["bob"]).await;
    group(&ann, "work", &["bob"]).await;
    let mut notices = inbox_of(&bob, "bob").await;
    for _ in 0..2 {
        assert!(matches!(next_event(&mut notices).await.notice(), Some(Notice::Added { .. })));
    }
    for text in ["one", "two", "three"] {
        ann.send(&tea.log(), text).await.unwrap();
    }
    bob.set_preferences(&tea.id, Preferences { pinned: Some(true), muted: None }).await.unwrap();
    bob.block(&user("eve")).await.unwrap();
    let page = bob.inbox(None).await.unwrap();
    assert_eq!((&page.blocked[..], page.next), (&[user("eve")][..], None));
    let [entry, other] = &page.entries[..] else { panic!("two conversations: {:?}", page.entries) };
    assert_eq!((entry.pinned, entry.muted, entry.unread()), (true, false, Some(3)));
    assert_eq!((other.id.as_str(), other.pinned, other.unread()), ("work", false, Some(0)));
    let last = entry.overview.as_ref().unwrap().last.clone().unwrap();
    assert_eq!((last.sender.as_str(), last.text().as_deref()), ("ann", Some("three")));

    bob.cursor(&tea.log(), 0, last.seq - 1).await.unwrap();
    bob.unblock(&user("eve")).await.unwrap();
    // Requests of one session to other logs may overtake its cursor, so this is asked until it shows.
    let mut page = bob.inbox(None).await.unwrap();
    while page.entries[0].unread() != Some(1) {
        page = bob.inbox(None).await.unwrap();
    }
    assert!(page.blocked.is_empty());
    bob.send(&tea.log(), "four").await.unwrap();
    assert_eq!(bob.inbox(None).await.unwrap().entries[0].unread(), Some(0), "who sends has read what came before");
    assert_eq!(bob.inbox(Some(&tea.id)).await.unwrap().entries[0].id.as_str(), "work");
}

#[tokio::test]
async fn digests_move_the_inbox_on_without_a_subscription() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, Config { follow_mine: true, ..broker.config("bob") });
    let bob = Client::connect(bob).await.unwrap();
    let tea = group(&ann, "tea", &["bob"]).await;
    next_event(&mut inbox_of(&bob, "bob").await).await;
    let mut digests = bob.digests();
    let mut overview = bob.inbox(None).await.unwrap().entries[0].overview.clone().unwrap();
    for (sender, text, unread) in [(&ann, "one", 1), (&bob, "two", 0)] {
        let sent = sender.send(&tea.log(), text).await.unwrap();
        while overview.head < sent.position {
            overview.apply(&digests.recv().await.unwrap(), "bob");
        }
        let last = overview.last.as_ref().and_then(|last| last.text());
        assert_eq!((overview.unread(), last.as_deref()), (unread, Some(text)));
    }
}

#[tokio::test]
async fn other_devices_learn_from_the_inbox() {
    let broker = Real::start();
    let (ann, phone) = (broker.connect("ann").await, broker.connect_device("bob", "phone").await);
    let laptop = broker.connect_device("bob", "laptop").await;
    let mut inbox = inbox_of(&laptop, "bob").await;
    let tea = group(&ann, "tea", &["bob"]).await;
    let mut notices = vec![next_event(&mut inbox).await.notice().unwrap()];
    let muted = Preferences { muted: Some(true), pinned: None };
    phone.set_preferences(&tea.id, muted).await.unwrap();
    phone.block(&user("eve")).await.unwrap();
    let sent = ann.send(&tea.log(), "one").await.unwrap();
    let mut events = phone.subscribe(&tea.log(), From::Position(sent.position)).await.unwrap();
    let hidden = phone.history(Range::newest(tea.log(), 1)).await.unwrap().events[0].reference();
    phone.hide(&tea.log(), hidden).await.unwrap();
    ann.remove_member(&tea.id, &user("bob")).await.unwrap();
    for _ in 0..4 {
        notices.push(next_event(&mut inbox).await.notice().unwrap());
    }
    let [added, preferences, block, hide, removed] = &notices[..] else { unreachable!() };
    assert!(matches!(added, Notice::Added { conversation, .. } if *conversation == tea.id));
    assert_eq!(*preferences, Notice::Preferences { conversation: tea.id.clone(), preferences: muted });
    assert_eq!(*block, Notice::Block { user: user("eve"), blocked: true });
    assert_eq!(*hide, Notice::Hide { log: tea.log(), event: hidden });
    assert!(matches!(removed, Notice::Removed { conversation, .. } if *conversation == tea.id));
    let removal = next_event(&mut events).await;
    assert!(matches!(removal.notice(), Some(Notice::Members { members, .. }) if members[0].user == user("bob")));
}

#[tokio::test]
async fn a_message_is_edited_reacted_to_hidden_and_redacted() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    let log = group(&ann, "tea", &["bob"]).await.log();
    let tea = ann.send(&log, "tea?").await.unwrap().reference();
    let answer = NewMessage::reply(log.clone(), tea, "yes");
    let answer = bob.send_message(answer).await.unwrap().reference();
    ann.send_message(NewMessage::edit(log.clone(), tea, "coffee?")).await.unwrap();
    bob.send_message(NewMessage::react(log.clone(), tea, "+1")).await.unwrap();
    bob.send_message(NewMessage::pin(log.clone(), tea)).await.unwrap();
    let messages = bob.messages(Range::all(log.clone())).await.unwrap().messages;
    assert_eq!((messages[0].text().as_deref(), messages[0].edits().len()), (Some("coffee?"), 1));
    assert_eq!((messages[0].reactions()[0].count, messages[0].reactions()[0].mine), (1, true));
    assert_eq!(messages[0].pinned().map(|mark| mark.user), Some("bob"));
    assert_eq!(messages[1].reply().map(|reply| reply.message), Some(tea));
    bob.send_message(NewMessage::unreact(log.clone(), tea, "+1")).await.unwrap();
    bob.send_message(NewMessage::unpin(log.clone(), tea)).await.unwrap();
    ann.send_message(NewMessage::redact(log.clone(), tea)).await.unwrap();
    bob.hide(&log, answer).await.unwrap();
    let messages = bob.messages(Range::all(log.clone())).await.unwrap().messages;
    assert_eq!((messages.len(), messages[0].is_redacted(), messages[0].pinned()), (1, true, None));
    assert_eq!(ann.messages(Range::all(log)).await.unwrap().messages.len(), 2, "others still see what one hides");
}

#[tokio::test]
async fn presence_is_seen_and_watched_on_after_a_lost_connection() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    group(&ann, "tea", &["bob"]).await;
    for (client, id) in [(&ann, "ann"), (&bob, "bob")] {
        next_event(&mut inbox_of(client, id).await).await;
    }
    ann.watch_presence([user("bob"), user("stranger")]).await.unwrap();
    sees(&ann, "bob", PresenceStatus::Online).await;
    sees(&ann, "stranger", PresenceStatus::Offline).await;
    bob.set_presence(PresenceStatus::Busy, "in a meeting").await.unwrap();
    assert_eq!(sees(&ann, "bob", PresenceStatus::Busy).await, "in a meeting");
    ann.kill_connection().await.unwrap();
    bob.set_presence(PresenceStatus::Away, "").await.unwrap();
    assert_eq!(sees(&ann, "bob", PresenceStatus::Away).await, "");
    bob.block(&user("ann")).await.unwrap();
    sees(&ann, "bob", PresenceStatus::Offline).await;
    ann.watch_presence([user("stranger")]).await.unwrap();
    assert_eq!(ann.presences().borrow().keys().collect::<Vec<_>>(), [&user("stranger")]);
    let many = (0..65).map(|n| user(&format!("u{n}")));
    let refused = ann.watch_presence(many).await.unwrap_err();
    assert!(matches!(refused, antiphon_sdk::Error::Request(RequestError::TooMany { max: 64, .. })), "{refused}");
}

#[tokio::test]
async fn signals_reach_the_others_and_hold_up_nobody() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    let log = group(&ann, "tea", &["bob"]).await.log();
    let mut events = bob.subscribe(&log, From::Tail).await.unwrap();
    // More than there may be requests in flight, each of which would wait for an answer that never comes.
    for _ in 0..300 {
        ann.signal(&log, "typing", Bytes::from_static(b"?"), 500).await.unwrap();
    }
    ann.send(&log, "done").await.unwrap();
    // Signals and events come on streams of their own, so either may be first.
    let (mut heard, mut done) = (None, false);
    while heard.is_none() || !done {
        match events.next().await.expect("the subscription goes on") {
            Item::Signal(signal) => heard = Some((signal.user, signal.kind, signal.ttl_ms)),
            Item::Event(event) => done |= event.text().as_deref() == Some("done"),
            _ => {}
        }
    }
    assert_eq!(heard, Some(("ann".into(), "typing".into(), 500)));
}

#[tokio::test]
async fn a_message_is_queued_sent_delivered_and_read() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    let log = group(&ann, "tea", &["bob"]).await.log();
    let _follows = ann.subscribe(&log, From::Tail).await.unwrap();
    let mut first = ann.send_queued(NewMessage::text(log.clone(), "one")).await.unwrap();
    let sent = first.sent().await.unwrap();
    bob.cursor(&log, sent.position.seq, 0).await.unwrap();
    while first.state() != SendState::Delivered {
        first.changed().await.expect("it is delivered");
    }
    // Answering is reading, and no cursor says so.
    bob.send(&log, "two").await.unwrap();
    while first.state() != SendState::Read {
        first.changed().await.expect("it is read");
    }
    assert_eq!(first.sent().await.unwrap(), sent, "where it was stored stays known");
    let mut refused = ann.send_queued(NewMessage::text("c:nowhere".parse().unwrap(), "x")).await.unwrap();
    assert!(refused.sent().await.is_err());
    assert!(matches!(refused.state(), SendState::Failed(_)));
}

#[tokio::test]
async fn a_conversation_is_managed_by_those_who_may() {
    let broker = Real::start();
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    let mut notices = inbox_of(&bob, "bob").await;
    let id: ConversationId = group(&ann, "tea", &[]).await.id;
    let refused = bob.join(&id).await.unwrap_err();
    assert!(matches!(refused, antiphon_sdk::Error::Request(RequestError::Refused(Refusal { number: 4_000.., .. }))));
    let join_policy = Some(antiphon_sdk::JoinPolicy::Open);
    ann.update_conversation(&id, antiphon_sdk::ConversationChanges { join_policy, ..Default::default() })
        .await
        .unwrap();
    ann.set_title(&id, "Tea").await.unwrap();
    bob.join(&id).await.unwrap();
    ann.set_role(&id, &user("bob"), antiphon_sdk::Role::Owner).await.unwrap();
    bob.add_members(&id, [(user("carl"), antiphon_sdk::Role::Member)]).await.unwrap();
    ann.leave(&id).await.unwrap();
    let tea = bob.conversation(&id).await.unwrap();
    assert_eq!((tea.title.as_str(), tea.members.len()), ("Tea", 2));
    let kinds: Vec<EventKind> =
        bob.history(Range::all(tea.log())).await.unwrap().events.iter().map(Event::kind).collect();
    assert!(kinds.contains(&EventKind::MEMBER) && kinds.contains(&EventKind::CONVERSATION));
    bob.delete_conversation(&id).await.unwrap();
    while !matches!(next_event(&mut notices).await.notice(), Some(Notice::Removed { .. })) {}
    assert!(bob.inbox(None).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn revoking_ends_the_sessions_of_older_tokens() {
    let broker = Real::start();
    let config = Config { device: Some("phone".parse().unwrap()), ..broker.config("ann") };
    let ann = Client::connect(config).await.unwrap();
    let mut state = ann.connection_state();
    // The connection may end before the answer is read.
    let _ = ann.revoke_own_sessions().await;
    let stopped = state.wait_for(|state| matches!(state, ConnectionState::Stopped(_))).await.unwrap();
    assert!(matches!(&*stopped, ConnectionState::Stopped(StopReason::SameToken(refusal)) if refusal.number == 2_003));
}

/// The broker closes it at once, and the close code says all.
#[tokio::test]
async fn a_newer_connection_of_the_device_stops_the_older_one() {
    let broker = Real::start();
    let older = broker.connect_device("ann", "phone").await;
    let mut state = older.connection_state();
    let newer = broker.connect_device("ann", "phone").await;
    let stopped = state.wait_for(|state| matches!(state, ConnectionState::Stopped(_))).await.unwrap();
    assert!(matches!(&*stopped, ConnectionState::Stopped(StopReason::Refused(refusal)) if refusal.number == 5_003));
    newer.inbox(None).await.unwrap();
}
