//! The fold against a model that remembers everybody: whatever order, split or repetition the events come in.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{
    ContentType, EventKind, NewEnvelope, NewRow, Rel, Relation, Row, UserId,
    control::{MessageState, MessageView},
    envelope::EventRef,
    fold,
    limits::REACTION_USERS_SHOWN_MAX,
};
use proptest::prelude::*;
use uuid::Uuid;

const KEYS: [&str; 3] = ["+1", "heart", "tea"];
const MESSAGES: u64 = 3;

/// Something a user wants to happen to message `target`.
#[derive(Debug, Clone)]
struct Wish {
    kind: EventKind,
    target: u64,
    user: usize,
    key: usize,
    remove: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let kinds = [EventKind::EDIT, EventKind::REDACT, EventKind::PIN, EventKind::REACTION];
    let kind = prop::sample::select(kinds.to_vec()).prop_flat_map(|kind| {
        // Redactions end things, and reactions are what there is most of.
        prop_oneof![8 => Just(EventKind::REACTION), 2 => Just(EventKind::EDIT), 2 => Just(EventKind::PIN), 1 => Just(kind)]
    });
    (kind, 1..=MESSAGES, 0..12_usize, 0..KEYS.len(), any::<bool>()).prop_map(|(kind, target, user, key, remove)| Wish {
        kind,
        target,
        user,
        key,
        remove,
    })
}

fn user(n: usize) -> UserId {
    format!("user-{n}").parse().unwrap()
}

fn row(seq: u64, kind: EventKind, sender: usize, envelope: &[u8]) -> Row {
    let body = format!("body of {seq}");
    NewRow {
        seq,
        msgno: seq,
        time_ms: seq,
        event_id: Uuid::from_u128(seq.into()),
        client_message_id: Uuid::nil(),
        kind,
        content_type: ContentType::Text,
        sender: &user(sender),
        via: None,
        envelope,
        body: if kind <= EventKind::EDIT { body.as_bytes() } else { b"" },
    }
    .to_row()
}

/// What the log's owner knows of one message.
#[derive(Debug, Default)]
struct Model {
    reactions: BTreeSet<(usize, usize)>,
    is_pinned: bool,
    is_redacted: bool,
    edits: Vec<u64>,
}

/// The rows of a log with these wishes, as its owner writes them, and what it knows in the end.
fn log(wishes: &[Wish]) -> (Vec<Row>, BTreeMap<u64, Model>) {
    let mut models: BTreeMap<u64, Model> = (1..=MESSAGES).map(|seq| (seq, Model::default())).collect();
    // Each message answers the one before it.
    let reply = |seq: u64| EventRef { event_id: Uuid::from_u128(u128::from(seq)), seq };
    let message = |seq: u64| {
        let envelope = NewEnvelope { reply_to: (seq > 1).then(|| reply(seq - 1)), ..Default::default() };
        row(seq, EventKind::MESSAGE, 0, &envelope.to_bytes())
    };
    let mut rows: Vec<Row> = (1..=MESSAGES).map(message).collect();
    for wish in wishes {
        let model = models.get_mut(&wish.target).unwrap();
        if model.is_redacted {
            continue;
        }
        let seq = rows.len() as u64 + 1;
        let key = (wish.kind == EventKind::REACTION).then_some(KEYS[wish.key]);
        let remove = wish.remove && wish.kind >= EventKind::REACTION;
        let relation = Relation { rel: Rel(wish.kind.0), target: reply(wish.target), key, remove };
        let row = row(
            seq,
            wish.kind,
            wish.user,
            &NewEnvelope { relates_to: Some(relation), ..Default::default() }.to_bytes(),
        );
        let is_changed = match wish.kind {
            EventKind::REACTION if remove => model.reactions.remove(&(wish.key, wish.user)),
            EventKind::REACTION => model.reactions.insert((wish.key, wish.user)),
            EventKind::PIN => std::mem::replace(&mut model.is_pinned, !remove) == remove,
            EventKind::REDACT => {
                *model = Model { is_redacted: true, ..Model::default() };
                true
            }
            _ => {
                model.edits.push(seq);
                true
            }
        };
        rows.push(if is_changed { row } else { row.unchanged() });
    }
    (rows, models)
}

fn page(rows: &[Row], reader: &str) -> Vec<MessageView> {
    let mut messages = Vec::new();
    rows.iter().for_each(|row| fold::page(&mut messages, row, reader));
    messages
}

fn check(state: &MessageState, model: &Model, reader: usize) {
    assert_eq!(state.redacted.is_some(), model.is_redacted);
    assert_eq!((state.pinned.is_some(), &state.edits), (model.is_pinned, &model.edits));
    assert_eq!(state.edit.as_ref().map(|edit| edit.seq), model.edits.last().copied());
    let counts: BTreeMap<&str, u32> = state.reactions.iter().map(|r| (r.key.as_str(), r.count)).collect();
    let mut expected = BTreeMap::new();
    for (key, _) in &model.reactions {
        *expected.entry(KEYS[*key]).or_insert(0) += 1;
    }
    assert_eq!(counts, expected);
    for reactions in &state.reactions {
        let key = KEYS.iter().position(|key| *key == reactions.key).unwrap();
        assert_eq!(reactions.mine, model.reactions.contains(&(key, reader)));
        assert!(reactions.users.len() <= REACTION_USERS_SHOWN_MAX);
        let has_reacted =
            |name: &String| (0..12).any(|n| user(n).as_str() == name && model.reactions.contains(&(key, n)));
        assert!(reactions.users.iter().all(has_reacted), "whoever is named has reacted");
    }
}

proptest! {
    #[test]
    fn the_fold_knows_what_its_owner_knows(wishes in prop::collection::vec(wish(), 0..80), reader in 0..12_usize) {
        let (rows, models) = log(&wishes);
        for (view, (_, model)) in page(&rows, user(reader).as_str()).iter().zip(&models) {
            check(&view.state.clone().unwrap_or_default(), model, reader);
            prop_assert_eq!(Row::new(view.row.clone()).unwrap().is_redacted(), model.is_redacted);
        }
    }

    #[test]
    fn events_on_top_of_any_page_give_the_later_page(
        wishes in prop::collection::vec(wish(), 0..60),
        head in 0..60_usize,
        ahead in 0..10_usize,
    ) {
        let (rows, _) = log(&wishes);
        let head = (MESSAGES as usize + head).min(rows.len());
        // A page may be ahead of the head that it names, message by message.
        let ahead = (head + ahead).min(rows.len());
        let reader = user(1);
        let mut messages = page(&rows[..ahead], reader.as_str());
        rows[head..].iter().for_each(|row| fold::page(&mut messages, row, reader.as_str()));
        prop_assert_eq!(messages, page(&rows, reader.as_str()));
    }

    #[test]
    fn the_preview_of_a_reply_is_that_of_the_message_as_it_stands(wishes in prop::collection::vec(wish(), 0..60)) {
        let (rows, _) = log(&wishes);
        let messages = page(&rows, "");
        for pair in messages.windows(2) {
            let row = Row::new(pair[0].row.clone()).unwrap();
            let Some(reply) = &pair[1].reply else {
                prop_assert!(Row::new(pair[1].row.clone()).unwrap().is_redacted());
                continue;
            };
            let fresh = fold::preview(&row, pair[0].state.as_ref());
            prop_assert_eq!(reply, &fresh);
        }
    }
}
