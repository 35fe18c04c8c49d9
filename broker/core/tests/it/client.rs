//! A client of the tests: encodes requests, decodes what lands in its outbox, and checks every frame against what must
//! hold always.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_core::ConnectionId;
use antiphon_protocol::{
    Class, ContentType, Decoder, Direction, ErrorCode, EventKind, FrameType, LogKey, LogName, RawFrame, Row, TenantId,
    control::{self, Attach, Detach, MemberCursor, Signaled, Welcome},
    frames::{self, Ack, NewSend, Page},
    limits::FRAME_BYTES_MAX,
};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::store::Store;

/// The answer to a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Ack(Ack),
    Ok(Bytes),
    Error(control::Error),
    Page(Page),
    Messages(Box<control::MessagesPage>),
    Batch(control::BatchAck),
    Attach(Box<Attach>),
    Welcome(Box<Welcome>),
}

impl Reply {
    pub(crate) fn ack(self) -> Ack {
        match self {
            Self::Ack(ack) => ack,
            other => panic!("an ACK was expected, not {other:?}"),
        }
    }

    pub(crate) fn error(self) -> control::Error {
        match self {
            Self::Error(error) => error,
            other => panic!("an ERROR was expected, not {other:?}"),
        }
    }

    pub(crate) fn code(self) -> ErrorCode {
        ErrorCode::from_number(self.error().number).unwrap()
    }

    pub(crate) fn page(self) -> Page {
        match self {
            Self::Page(page) => page,
            other => panic!("a PAGE was expected, not {other:?}"),
        }
    }

    pub(crate) fn messages(self) -> control::MessagesPage {
        match self {
            Self::Messages(page) => *page,
            other => panic!("a MESSAGES_PAGE was expected, not {other:?}"),
        }
    }

    pub(crate) fn batch(self) -> Vec<control::BatchResult> {
        match self {
            Self::Batch(ack) => ack.results,
            other => panic!("a BATCH_ACK was expected, not {other:?}"),
        }
    }

    pub(crate) fn attach(self) -> Attach {
        match self {
            Self::Attach(attach) => *attach,
            other => panic!("an ATTACH was expected, not {other:?}"),
        }
    }

    pub(crate) fn ok<M: Message + Default>(self) -> M {
        match self {
            Self::Ok(body) => M::decode(body).unwrap(),
            other => panic!("an OK was expected, not {other:?}"),
        }
    }

    pub(crate) fn conversation(self) -> control::Conversation {
        self.ok()
    }
}

/// Something on the events stream.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Attached,
    Row(Row),
    Behind,
    Detached(Detach),
}

/// Something on the state stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Cursor(MemberCursor),
    Signal(Signaled),
    Head(control::Head),
    Presence(control::Presence),
}

#[derive(Debug)]
struct Follow {
    log: String,
    next: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shard: usize,
    /// Its own, or its trunk's.
    pub(crate) connection: ConnectionId,
    /// On a trunk its number there, otherwise 0.
    pub(crate) channel: u32,
    /// What its edge has for it, by stream.
    pub(crate) waiting: [VecDeque<Bytes>; 5],
    /// An edge hands over nothing between HELLO and its answer.
    pub(crate) awaits_welcome: bool,
    pub(crate) tenant: TenantId,
    /// Bytes that the transport has not taken yet.
    pub(crate) outgoing: VecDeque<Bytes>,
    /// Which streams it reads.
    pub(crate) reads: [bool; 5],
    pub(crate) is_writable: bool,
    /// The code that its connection was closed with.
    pub(crate) closed: Option<ErrorCode>,
    /// The ERROR with id 0 that said why.
    pub(crate) farewell: Option<control::Error>,
    pub(crate) goaways: Vec<control::Goaway>,
    pub(crate) is_gone: bool,
    pub(crate) replies: BTreeMap<u32, Reply>,
    pub(crate) events: Vec<(String, Event)>,
    pub(crate) told: Vec<Told>,
    /// Requests that wait for their answer; sends with where their row belongs.
    pub(crate) unanswered: BTreeMap<u32, Option<(LogKey, Uuid)>>,
    follows: BTreeMap<u32, Follow>,
    next_request: u32,
}

impl Client {
    pub(crate) fn new(shard: usize, connection: ConnectionId, tenant: TenantId) -> Self {
        Self {
            shard,
            connection,
            channel: 0,
            waiting: Default::default(),
            awaits_welcome: false,
            tenant,
            outgoing: VecDeque::new(),
            reads: [true; 5],
            is_writable: false,
            closed: None,
            farewell: None,
            goaways: Vec::new(),
            is_gone: false,
            replies: BTreeMap::new(),
            events: Vec::new(),
            told: Vec::new(),
            unanswered: BTreeMap::new(),
            follows: BTreeMap::new(),
            next_request: 0,
        }
    }

    pub(crate) fn next_request_id(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    /// Bytes of events that its edge has for it.
    pub(crate) fn waiting_events(&self) -> usize {
        self.waiting[Class::Events as usize].iter().map(Bytes::len).sum()
    }

    /// Takes in one frame of one stream.
    pub(crate) fn absorb(&mut self, class: Class, bytes: Bytes, store: &Store) {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(bytes);
        let frame = decoder.next_frame().unwrap().expect("the outbox holds whole frames");
        assert_eq!(decoder.buffered(), 0);
        assert_eq!(frame.frame_type.direction(), Direction::ToClient);
        assert_eq!(frame.frame_type.class(), class, "{} on its stream", frame.frame_type.name());
        assert!(class != Class::Control || self.farewell.is_none(), "nothing follows the farewell: {frame:?}");
        match class {
            Class::Events if frame.frame_type != FrameType::Attach => self.absorb_event(&frame, store),
            Class::State => self.absorb_state(&frame),
            _ => self.absorb_answer(&frame, store),
        }
    }

    fn absorb_answer(&mut self, frame: &RawFrame, store: &Store) {
        let reply = match frame.frame_type {
            FrameType::Ack => Reply::Ack(Ack::decode(&frame.body).unwrap()),
            FrameType::Ok => Reply::Ok(frame.body.clone()),
            FrameType::Error => Reply::Error(frames::decode_answer(&frame.body).unwrap()),
            FrameType::Page => Reply::Page(Page::decode(&frame.body).unwrap()),
            FrameType::MessagesPage => Reply::Messages(Box::new(frames::decode_answer(&frame.body).unwrap())),
            FrameType::BatchAck => Reply::Batch(frames::decode_answer(&frame.body).unwrap()),
            FrameType::Attach => Reply::Attach(Box::new(frames::decode_answer(&frame.body).unwrap())),
            FrameType::Welcome => {
                self.awaits_welcome = false;
                Reply::Welcome(Box::new(frames::decode_answer(&frame.body).unwrap()))
            }
            FrameType::Goaway => return self.goaways.push(frames::decode_answer(&frame.body).unwrap()),
            other => panic!("{} is no answer", other.name()),
        };
        if let (0, Reply::Error(error)) = (frame.id, &reply) {
            self.farewell = Some(error.clone());
            return;
        }
        let asked = self.unanswered.remove(&frame.id);
        let asked = asked.unwrap_or_else(|| panic!("request {} was not asked or answered before: {reply:?}", frame.id));
        match (&reply, asked) {
            (Reply::Ack(ack), Some((key, id))) => {
                let row = store.logs[&key].rows.get(&ack.position.seq).expect("what is acknowledged is stored");
                assert_eq!((row.client_message_id(), row.event_id()), (id, ack.event_id));
            }
            (Reply::Ack(_), None) => panic!("an ACK answers a SEND"),
            (Reply::Attach(attach), _) => self.attach(attach),
            _ => {}
        }
        self.replies.insert(frame.id, reply);
    }

    fn attach(&mut self, attach: &Attach) {
        assert!(attach.replay_from <= attach.live_from && attach.live_from == attach.head + 1);
        let next = if attach.inlined { attach.replay_from } else { attach.live_from };
        self.follows.insert(attach.handle, Follow { log: attach.log.clone(), next });
        self.events.push((attach.log.clone(), Event::Attached));
    }

    fn absorb_event(&mut self, frame: &RawFrame, store: &Store) {
        let tenant = self.tenant.clone();
        let follow = self.follows.get_mut(&frame.id).expect("nothing comes for a log that is not followed");
        let log = follow.log.clone();
        let event = match frame.frame_type {
            FrameType::Event => {
                let row = Row::new(frame.body.clone()).unwrap();
                assert_eq!(row.seq(), follow.next, "live events of {log} have no gap and no repetition");
                follow.next += 1;
                let key = log.parse::<LogName>().unwrap().key(&tenant);
                let stored = store.logs[&key].rows.get(&row.seq()).expect("what is delivered is stored");
                assert_eq!(stored.event_id(), row.event_id());
                Event::Row(row)
            }
            FrameType::Behind => {
                self.follows.remove(&frame.id);
                Event::Behind
            }
            FrameType::Detach => {
                self.follows.remove(&frame.id);
                Event::Detached(frames::decode_answer(&frame.body).unwrap())
            }
            other => panic!("{} is not expected", other.name()),
        };
        self.events.push((log, event));
    }

    fn absorb_state(&mut self, frame: &RawFrame) {
        self.told.push(match frame.frame_type {
            FrameType::Cursors => Told::Cursor(frames::decode_answer(&frame.body).unwrap()),
            FrameType::Presence => Told::Presence(frames::decode_answer(&frame.body).unwrap()),
            FrameType::Head => Told::Head(frames::decode_answer(&frame.body).unwrap()),
            FrameType::Signaled => Told::Signal(frames::decode_answer(&frame.body).unwrap()),
            other => panic!("{} is not expected", other.name()),
        });
    }

    /// Handles of the logs that it follows, by name.
    pub(crate) fn handle(&self, log: &str) -> Option<u32> {
        self.follows.iter().find(|(_, follow)| follow.log == log).map(|(handle, _)| *handle)
    }

    /// Logs that it follows.
    pub(crate) fn followed(&self) -> BTreeSet<String> {
        self.follows.values().map(|follow| follow.log.clone()).collect()
    }

    /// Rows that came live or inlined, of one log.
    pub(crate) fn rows(&self, log: &str) -> Vec<Row> {
        let rows = self.events.iter().filter(|(name, _)| name == log);
        rows.filter_map(|(_, event)| if let Event::Row(row) = event { Some(row.clone()) } else { None }).collect()
    }
}

/// A SEND that is being made.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) log: String,
    pub(crate) id: Uuid,
    pub(crate) dseq: u64,
    pub(crate) kind: EventKind,
    pub(crate) content_type: ContentType,
    pub(crate) act_as: Option<String>,
    pub(crate) envelope: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Draft {
    pub(crate) fn text(log: &str, id: Uuid, body: &str) -> Self {
        Self {
            log: log.into(),
            id,
            dseq: 0,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            act_as: None,
            envelope: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn dseq(self, dseq: u64) -> Self {
        Self { dseq, ..self }
    }

    /// The SEND_BATCH of drafts for one log.
    pub(crate) fn to_batch(drafts: &[Self], request_id: u32) -> Bytes {
        let act_as: Vec<_> =
            drafts.iter().map(|draft| draft.act_as.as_ref().map(|user| user.parse().unwrap())).collect();
        let log = drafts[0].log.parse().unwrap();
        let new = |(draft, act_as)| Self::new_send(draft, &log, Option::as_ref(act_as));
        let records: Vec<_> = drafts.iter().zip(&act_as).map(new).collect();
        frames::SendBatch::to_frame(request_id, &records)
    }

    /// The IMPORT of drafts for one log, each with its time.
    pub(crate) fn to_import(drafts: &[(u64, Self)], request_id: u32) -> Bytes {
        let act_as = |draft: &Self| draft.act_as.as_ref().map(|user| user.parse().unwrap());
        let act_as: Vec<_> = drafts.iter().map(|(_, draft)| act_as(draft)).collect();
        let log = drafts[0].1.log.parse().unwrap();
        let with_act_as = drafts.iter().zip(&act_as);
        let records: Vec<_> =
            with_act_as.map(|((ms, draft), user)| (*ms, draft.new_send(&log, user.as_ref()))).collect();
        frames::Import::to_frame(request_id, &records)
    }

    fn new_send<'a>(&'a self, log: &'a LogName, act_as: Option<&'a antiphon_protocol::UserId>) -> NewSend<'a> {
        NewSend {
            client_message_id: self.id,
            dseq: self.dseq,
            kind: self.kind,
            content_type: self.content_type,
            log,
            act_as,
            envelope: &self.envelope,
            body: &self.body,
        }
    }

    pub(crate) fn to_frame(&self, request_id: u32) -> Bytes {
        let act_as = self.act_as.as_ref().map(|user| user.parse().unwrap());
        self.new_send(&self.log.parse().unwrap(), act_as.as_ref()).to_frame(request_id)
    }
}
