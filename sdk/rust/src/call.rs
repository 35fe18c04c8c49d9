//! What a handle asks of the driver.

use std::collections::BTreeSet;

use antiphon_protocol::{FrameType, LogName, UserId};
use antiphon_sdk_core::{From, Item, NewMessage, NewSignal, Range};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    queued::Fate,
    waiters::{AnswerReply, AttachReply, DoneReply, MessagesReply, PageReply, SendReply},
};

/// One wish, and who waits for its answer.
#[derive(Debug)]
pub(crate) enum Call {
    Send {
        message: NewMessage,
        reply: SendReply,
    },
    SendQueued {
        message: NewMessage,
        follower: watch::Sender<Fate>,
    },
    SendBatch {
        messages: Vec<(NewMessage, SendReply)>,
    },
    Messages {
        range: Range,
        reply: MessagesReply,
    },
    Subscribe {
        log: LogName,
        from: From,
        items: mpsc::Sender<Item>,
        reply: AttachReply,
    },
    Fetch {
        range: Range,
        reply: PageReply,
    },
    Cursor {
        log: LogName,
        delivered: u64,
        read: u64,
    },
    Signal {
        signal: NewSignal,
        reply: DoneReply,
    },
    WatchPresence {
        users: BTreeSet<UserId>,
        reply: DoneReply,
    },
    Request {
        frame_type: FrameType,
        body: Bytes,
        reply: AnswerReply,
    },
    RenewToken,
    #[cfg(feature = "test-hooks")]
    Kill,
    Close,
}
