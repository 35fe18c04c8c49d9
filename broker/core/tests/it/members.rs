//! Conversations: creation, roles, removal, joining, deletion.

use antiphon_core::claims::Ability;
use antiphon_protocol::{
    Class, ErrorCode, FrameType,
    control::{self, Conversation, ConversationCreate, ConversationKind, JoinPolicy, Role, subscribe::From},
};
use antiphon_storage_contract::StoreError;

use super::harness::*;

pub(crate) fn remove(c: &mut Cluster, who: Who, id: &str, user: &str) -> Reply {
    let remove = control::MemberRemove { conversation: id.into(), user: user.into() };
    c.call(who, FrameType::MemberRemove, &remove)
}

pub(crate) fn add(c: &mut Cluster, who: Who, id: &str, user: &str, role: Role) -> Reply {
    let add = control::MemberAdd { conversation: id.into(), members: vec![member(user, role)], ..Default::default() };
    c.call(who, FrameType::MemberAdd, &add)
}

fn set_role(c: &mut Cluster, who: Who, id: &str, user: &str, role: Role) -> Reply {
    let set = control::MemberSetRole { conversation: id.into(), user: user.into(), role: role.into() };
    c.call(who, FrameType::MemberSetRole, &set)
}

fn join(c: &mut Cluster, who: Who, id: &str) -> Reply {
    c.call(who, FrameType::Join, &control::Join { conversation: id.into() })
}

fn leave(c: &mut Cluster, who: Who, id: &str) -> Reply {
    c.call(who, FrameType::Leave, &control::Leave { conversation: id.into() })
}

fn delete(c: &mut Cluster, who: Who, id: &str) -> Reply {
    c.call(who, FrameType::ConversationDelete, &control::ConversationDelete { conversation: id.into() })
}

fn users(conversation: &Conversation) -> Vec<(&str, Role)> {
    conversation.members.iter().map(|member| (member.user.as_str(), member.role())).collect()
}

fn direct(peer: &str) -> ConversationCreate {
    ConversationCreate {
        kind: ConversationKind::Direct.into(),
        members: vec![member(peer, Role::Member)],
        ..Default::default()
    }
}

#[test]
fn creating_is_an_event_and_the_same_again_finds_it() {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    let create = ConversationCreate {
        conversation: "tea".into(),
        title: "Tea".into(),
        members: vec![member("bob", Role::Admin), member("ann", Role::Member)],
        ..Default::default()
    };
    let created = c.call(ann, FrameType::ConversationCreate, &create).conversation();
    assert_eq!((created.created, created.conversation.as_str(), created.head), (true, "tea", 1));
    assert_eq!(users(&created), [("ann", Role::Owner), ("bob", Role::Admin)]);
    let again = c.call(ann, FrameType::ConversationCreate, &create).conversation();
    assert_eq!((again.created, again.head), (false, 1));
    let other = ConversationCreate { title: "Coffee".into(), ..create.clone() };
    assert_eq!(c.call(ann, FrameType::ConversationCreate, &other).code(), ErrorCode::AlreadyExists);
    let eve = c.connect(0, "eve");
    assert_eq!(c.call(eve, FrameType::ConversationCreate, &create).code(), ErrorCode::AlreadyExists);
    let tilde = ConversationCreate { conversation: "~mine".into(), ..Default::default() };
    assert_eq!(c.call(eve, FrameType::ConversationCreate, &tilde).error().field, "conversation");
    let unnamed = c.call(eve, FrameType::ConversationCreate, &ConversationCreate::default()).conversation();
    assert!(unnamed.conversation.starts_with("~g"));
    let long = ConversationCreate { title: "x".repeat(257), ..Default::default() };
    assert_eq!(c.call(eve, FrameType::ConversationCreate, &long).error().field, "title");
}

#[test]
fn nothing_is_decided_on_a_change_that_is_not_durable() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &[]);
    c.store.hold(&[Kind::Append]);
    let add = control::MemberAdd {
        conversation: "tea".into(),
        members: vec![member("bob", Role::Member)],
        ..Default::default()
    };
    let added = c.ask(ann, FrameType::MemberAdd, &add);
    c.settle();
    let draft = c.draft("c:tea", "hi");
    let sent = c.send(bob, &draft);
    c.settle();
    assert!(!c.is_answered(ann, added) && !c.is_answered(bob, sent));
    c.store.fail(Kind::Append, StoreError::Full, 1);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(ann, added).code(), ErrorCode::StoreFull);
    assert_eq!(c.take(bob, sent).code(), ErrorCode::NotFound);
    c.call(ann, FrameType::MemberAdd, &add).conversation();
    c.send_now(bob, &draft).ack();
}

#[test]
fn a_removed_member_gets_the_removal_and_then_nothing() {
    let mut c = Cluster::new(2);
    let (ann, bob, other) = (c.connect(0, "ann"), c.connect(1, "bob"), c.connect(0, "bob"));
    c.group(ann, "tea", &["bob"]);
    for who in [ann, bob, other] {
        c.follow(who, "c:tea");
    }
    // Everything at once: before, the removal, after it.
    let draft = c.draft("c:tea", "before");
    c.send(ann, &draft);
    c.ask(ann, FrameType::MemberRemove, &control::MemberRemove { conversation: "tea".into(), user: "bob".into() });
    let draft = c.draft("c:tea", "after");
    c.send(ann, &draft);
    let signal = control::Signal { log: "c:tea".into(), kind: "typing".into(), ..Default::default() };
    c.ask(ann, FrameType::Signal, &signal);
    c.ask(
        ann,
        FrameType::Cursor,
        &control::Cursor { log: "c:tea".into(), read: 3, delivered: 3, act_as: String::new() },
    );
    c.settle();
    assert_eq!(c.heard(ann, "c:tea"), ["before", "after"]);
    for who in [bob, other] {
        let rows = c.client(who).rows("c:tea");
        assert_eq!(rows.iter().map(|row| row.seq()).collect::<Vec<_>>(), [2, 3], "the removal is the last");
        let Some((_, Event::Detached(detach))) = c.client(who).events.last() else { panic!("DETACH is last") };
        assert_eq!((detach.reason(), detach.seq), (control::detach::Reason::Removed, 3));
        assert!(c.client(who).told.is_empty());
        let refusals = [
            c.subscribe(who, "c:tea", after(2)),
            c.fetch(who, "c:tea", 0, 0),
            c.say(who, "c:tea", "let me in"),
            c.get(who, "tea"),
            leave(&mut c, who, "tea"),
        ];
        for refusal in refusals {
            let error = refusal.error();
            assert_eq!((error.number, error.removed_at), (ErrorCode::Removed as u32, 3));
        }
    }
    // It is still so after a restart.
    c.restart(1, false);
    let bob = c.connect(0, "bob");
    assert_eq!(c.fetch(bob, "c:tea", 0, 0).error().removed_at, 3);
}

#[test]
fn whoever_comes_back_begins_a_new_interval() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    remove(&mut c, ann, "tea", "bob").conversation();
    c.say(ann, "c:tea", "alone").ack();
    let conversation = add(&mut c, ann, "tea", "bob", Role::Member).conversation();
    let bobs = conversation.members.iter().find(|member| member.user == "bob").unwrap();
    assert_eq!(bobs.joined_seq, 4);
    c.say(ann, "c:tea", "welcome").ack();
    assert!(c.heard(bob, "c:tea").is_empty(), "the old subscription ended for good");
    c.subscribe(bob, "c:tea", after(2)).attach();
    assert_eq!(c.heard(bob, "c:tea"), ["alone", "welcome"]);
    c.say(bob, "c:tea", "thanks").ack();
}

#[test]
fn a_subscription_between_two_removals_ends_with_the_second() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.held_mail.insert((0, 1));
    c.held_mail.insert((1, 0));
    for _ in 0..2 {
        c.ask(ann, FrameType::MemberRemove, &control::MemberRemove { conversation: "tea".into(), user: "bob".into() });
        let members = vec![member("bob", Role::Member)];
        c.ask(
            ann,
            FrameType::MemberAdd,
            &control::MemberAdd { conversation: "tea".into(), members, ..Default::default() },
        );
    }
    c.settle();
    c.held_mail.clear();
    c.settle();
    c.follow(bob, "c:tea");
    c.say(ann, "c:tea", "hi").ack();
    assert_eq!(c.heard(bob, "c:tea"), ["hi"]);
    assert!(c.client(bob).handle("c:tea").is_some());
}

#[test]
fn roles_decide_who_changes_what() {
    let mut c = Cluster::new(2);
    let [owner, admin, plain, stranger] =
        [("owner", 0), ("admin", 1), ("plain", 0), ("stranger", 1)].map(|(user, shard)| c.connect(shard, user));
    c.group(owner, "tea", &["plain"]);
    add(&mut c, owner, "tea", "admin", Role::Admin).conversation();
    assert_eq!(add(&mut c, owner, "tea", "x", Role::Owner).error().field, "members.role");
    assert_eq!(add(&mut c, plain, "tea", "x", Role::Member).code(), ErrorCode::Forbidden);
    assert_eq!(add(&mut c, stranger, "tea", "x", Role::Member).code(), ErrorCode::NotFound);
    add(&mut c, admin, "tea", "x", Role::Member).conversation();
    assert_eq!(set_role(&mut c, admin, "tea", "x", Role::Admin).code(), ErrorCode::Forbidden);
    set_role(&mut c, owner, "tea", "x", Role::Admin).conversation();
    assert_eq!(set_role(&mut c, owner, "tea", "nobody", Role::Admin).code(), ErrorCode::NotFound);
    assert_eq!(remove(&mut c, admin, "tea", "x").code(), ErrorCode::Forbidden, "an admin does not remove an admin");
    assert_eq!(remove(&mut c, admin, "tea", "owner").code(), ErrorCode::Forbidden);
    remove(&mut c, admin, "tea", "plain").conversation();
    remove(&mut c, owner, "tea", "x").conversation();
    let update =
        control::ConversationUpdate { conversation: "tea".into(), title: Some("New".into()), ..Default::default() };
    assert_eq!(c.call(admin, FrameType::ConversationUpdate, &update).conversation().title, "New");
    assert_eq!(c.call(stranger, FrameType::ConversationUpdate, &update).code(), ErrorCode::NotFound);
    assert_eq!(delete(&mut c, admin, "tea").code(), ErrorCode::Forbidden);
    // Roles survive a restart.
    c.restart(1, false);
    let owner = c.connect(0, "owner");
    let conversation = c.get(owner, "tea").conversation();
    assert_eq!(users(&conversation), [("admin", Role::Admin), ("owner", Role::Owner)]);
    assert_eq!(conversation.title, "New");
}

#[test]
fn the_last_owner_stays_while_others_are_members() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, "tea", &["bob"]);
    assert_eq!(leave(&mut c, ann, "tea").code(), ErrorCode::Forbidden);
    assert_eq!(remove(&mut c, ann, "tea", "ann").code(), ErrorCode::Forbidden);
    assert_eq!(set_role(&mut c, ann, "tea", "ann", Role::Member).code(), ErrorCode::Forbidden);
    set_role(&mut c, ann, "tea", "bob", Role::Owner).conversation();
    for who in [ann, bob] {
        let Reply::Ok(body) = leave(&mut c, who, "tea") else { panic!("the last member may go") };
        assert!(body.is_empty(), "whoever left is told nothing more of the conversation");
        assert_eq!(c.say(who, "c:tea", "x").code(), ErrorCode::Removed);
    }
}

#[test]
fn a_direct_conversation_is_one_for_both_from_every_shard() {
    let mut c = Cluster::new(4);
    let (ann, bob, eve) = (c.connect(0, "ann"), c.connect(3, "bob"), c.connect(1, "eve"));
    let ids = [
        c.ask(ann, FrameType::ConversationCreate, &direct("bob")),
        c.ask(bob, FrameType::ConversationCreate, &direct("ann")),
    ];
    c.settle();
    let found = [c.take(ann, ids[0]).conversation(), c.take(bob, ids[1]).conversation()];
    assert_eq!(found[0].conversation, found[1].conversation);
    assert_eq!(found.iter().filter(|found| found.created).count(), 1);
    let id = found[0].conversation.clone();
    let log = format!("c:{id}");
    c.follow(bob, &log);
    c.say(ann, &log, "psst").ack();
    assert_eq!(c.heard(bob, &log), ["psst"]);
    assert_eq!(c.fetch(eve, &log, 0, 0).code(), ErrorCode::NotFound);
    assert_eq!(add(&mut c, ann, &id, "eve", Role::Member).code(), ErrorCode::Forbidden);
    assert_eq!(remove(&mut c, ann, &id, "bob").code(), ErrorCode::Forbidden);
    assert_eq!(leave(&mut c, bob, &id).code(), ErrorCode::Forbidden);
    let titled = ConversationCreate { title: "us".into(), ..direct("ann") };
    let again = c.call(bob, FrameType::ConversationCreate, &titled).conversation();
    assert_eq!(
        (again.conversation, again.created),
        (id, false),
        "a direct conversation is found whatever it is called"
    );
    let named = ConversationCreate { conversation: "us".into(), ..direct("bob") };
    assert_eq!(c.call(ann, FrameType::ConversationCreate, &named).error().field, "conversation");
    let three =
        ConversationCreate { members: vec![member("bob", Role::Member), member("eve", Role::Member)], ..direct("") };
    assert_eq!(c.call(ann, FrameType::ConversationCreate, &three).error().field, "members");
}

#[test]
fn nobody_joins_a_direct_conversation_of_others() {
    let mut c = Cluster::new(1);
    let (ann, eve) = (c.connect(0, "ann"), c.connect(0, "eve"));
    let open = ConversationCreate { join_policy: JoinPolicy::Open.into(), ..direct("bob") };
    let id = c.call(ann, FrameType::ConversationCreate, &open).conversation().conversation;
    assert_eq!(join(&mut c, eve, &id).code(), ErrorCode::NotFound);
    let update = control::ConversationUpdate {
        conversation: id.clone(),
        join_policy: Some(JoinPolicy::Open.into()),
        ..Default::default()
    };
    let _ = c.call(ann, FrameType::ConversationUpdate, &update);
    assert_eq!(join(&mut c, eve, &id).code(), ErrorCode::NotFound);
}

#[test]
fn an_open_conversation_is_joined_and_a_closed_one_looks_absent() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    let open =
        ConversationCreate { conversation: "lobby".into(), join_policy: JoinPolicy::Open.into(), ..Default::default() };
    c.call(ann, FrameType::ConversationCreate, &open).conversation();
    c.group(ann, "closed", &[]);
    assert_eq!(c.subscribe(bob, "c:lobby", From::Tail(true)).code(), ErrorCode::NotFound);
    assert_eq!(join(&mut c, bob, "lobby").conversation().members.len(), 2);
    assert_eq!(join(&mut c, bob, "lobby").conversation().head, 2, "joining twice is no event");
    c.say(bob, "c:lobby", "hi").ack();
    assert_eq!(join(&mut c, bob, "closed").code(), ErrorCode::NotFound);
    assert_eq!(join(&mut c, bob, "absent").code(), ErrorCode::NotFound);
    leave(&mut c, bob, "lobby").ok::<()>();
    assert_eq!(join(&mut c, bob, "lobby").conversation().members.len(), 2, "whoever left may join again");
}

#[test]
fn a_deleted_conversation_is_gone_for_everybody() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    let create = ConversationCreate {
        conversation: "tea".into(),
        members: vec![member("bob", Role::Member)],
        join_policy: JoinPolicy::Open.into(),
        ..Default::default()
    };
    c.call(ann, FrameType::ConversationCreate, &create).conversation();
    for who in [ann, bob] {
        c.follow(who, "c:tea");
    }
    assert!(delete(&mut c, ann, "tea").conversation().deleted);
    for who in [ann, bob] {
        let Some((_, Event::Detached(detach))) = c.client(who).events.last() else { panic!("DETACH is last") };
        assert_eq!((detach.reason(), detach.seq), (control::detach::Reason::Deleted, 2));
        for reply in
            [c.say(who, "c:tea", "x"), c.fetch(who, "c:tea", 0, 0), c.get(who, "tea"), join(&mut c, who, "tea")]
        {
            assert_eq!(reply.code(), ErrorCode::NotFound);
        }
    }
    assert_eq!(c.call(ann, FrameType::ConversationCreate, &create).code(), ErrorCode::AlreadyExists);
}

#[test]
fn a_log_with_events_is_not_taken_over_by_creating_it() {
    let mut c = Cluster::new(2);
    let claims = c.granted("bot", "c:support-*", &[Ability::Read, Ability::Send]);
    let bot = c.connect_with(0, claims);
    c.say(bot, "c:support-1", "secret").ack();
    let create = ConversationCreate { conversation: "support-1".into(), ..Default::default() };
    let eve = c.connect(1, "eve");
    for who in [eve, bot] {
        assert_eq!(c.call(who, FrameType::ConversationCreate, &create).code(), ErrorCode::AlreadyExists);
    }
    assert_eq!(c.fetch(eve, "c:support-1", 0, 0).code(), ErrorCode::NotFound);
    let claims = c.granted("desk", "c:support-*", &[Ability::Manage]);
    let desk = c.connect_with(1, claims);
    assert!(c.call(desk, FrameType::ConversationCreate, &create).conversation().created);
    let unused = ConversationCreate { conversation: "support-2".into(), ..Default::default() };
    assert!(c.call(eve, FrameType::ConversationCreate, &unused).conversation().created);
}

#[test]
fn a_service_creates_and_adds_in_the_name_of_a_user() {
    let mut c = Cluster::new(2);
    let claims = c.service("crm");
    let crm = c.connect_with(0, claims);
    let (ann, bob) = (c.connect(1, "ann"), c.connect(0, "bob"));
    let create = ConversationCreate { conversation: "tea".into(), act_as: "ann".into(), ..Default::default() };
    let created = c.call(crm, FrameType::ConversationCreate, &create).conversation();
    assert_eq!(users(&created), [("ann", Role::Owner)]);
    let row = c.fetch(ann, "c:tea", 0, 0).page().rows.remove(0);
    assert_eq!((row.sender(), row.via()), ("ann", Some("crm")));
    let add = control::MemberAdd {
        conversation: "tea".into(),
        members: vec![member("bob", Role::Member)],
        act_as: "ann".into(),
    };
    c.call(crm, FrameType::MemberAdd, &add).conversation();
    c.say(bob, "c:tea", "hi").ack();
    for act_as in ["bob", "eve"] {
        let add =
            control::MemberAdd { act_as: act_as.into(), members: vec![member("eve", Role::Member)], ..add.clone() };
        assert!(matches!(c.call(crm, FrameType::MemberAdd, &add), Reply::Error(_)), "the user's rights decide");
    }
    let forged = ConversationCreate { conversation: "mine".into(), act_as: "ann".into(), ..Default::default() };
    let error = c.call(bob, FrameType::ConversationCreate, &forged).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::Forbidden as u32, "act_as"));
    let error = c.call(bob, FrameType::MemberAdd, &add).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::Forbidden as u32, "act_as"));
    // A direct conversation that a service opens is the one that its user finds.
    let opened = ConversationCreate { act_as: "ann".into(), ..direct("bob") };
    let opened = c.call(crm, FrameType::ConversationCreate, &opened).conversation();
    let found = c.call(bob, FrameType::ConversationCreate, &direct("ann")).conversation();
    assert_eq!((found.conversation, found.created), (opened.conversation, false));
}

#[test]
fn a_removal_overtaken_by_a_slow_reader_still_ends_its_subscription() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    c.client_mut(bob).reads[Class::Events as usize] = false;
    for _ in 0..5 {
        c.say(ann, "c:tea", &"x".repeat(20_000)).ack();
    }
    remove(&mut c, ann, "tea", "bob").conversation();
    c.say(ann, "c:tea", "secret").ack();
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    assert!(c.client(bob).rows("c:tea").iter().all(|row| row.seq() < 7));
    assert!(c.client(bob).handle("c:tea").is_none());
    assert_eq!(c.subscribe(bob, "c:tea", after(3)).code(), ErrorCode::Removed);
}
