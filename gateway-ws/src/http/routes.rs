//! The HTTP API as a table: each request is one frame of the protocol, its answer that frame's answer.

use antiphon_protocol::FrameType;
use axum::http::Method;

/// How a value is written in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As a JSON string.
    Text,
    /// As it is: a number, `true` or `false`.
    Literal,
}

/// One request of the API.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// Below `/api/v1`; names in braces are members of the frame.
    pub(super) path: &'static str,
    pub(super) frame: FrameType,
    /// Members that the path says.
    pub(super) fixed: &'static str,
    /// Members that may be in the query.
    pub(super) query: &'static [(&'static str, Kind)],
    /// Whether the body holds the other members.
    pub(super) has_body: bool,
    pub(super) summary: &'static str,
}

const PAGE: &[(&str, Kind)] = &[
    ("from", Kind::Literal),
    ("to", Kind::Literal),
    ("limit", Kind::Literal),
    ("backward", Kind::Literal),
    ("at_ms", Kind::Literal),
];
const NONE: &[(&str, Kind)] = &[];

const fn route(method: Method, path: &'static str, frame: FrameType, summary: &'static str) -> Route {
    Route { method, path, frame, fixed: "", query: NONE, has_body: false, summary }
}

impl Route {
    const fn body(mut self) -> Self {
        self.has_body = true;
        self
    }

    const fn query(mut self, query: &'static [(&'static str, Kind)]) -> Self {
        self.query = query;
        self
    }

    const fn fixed(mut self, fixed: &'static str) -> Self {
        self.fixed = fixed;
        self
    }
}

/// Every request that is a frame.
pub(super) static ROUTES: &[Route] = &[
    route(Method::GET, "/conversations", FrameType::Sync, "Own conversations, a page of them")
        .query(&[("after", Kind::Text), ("limit", Kind::Literal)]),
    route(Method::POST, "/conversations", FrameType::ConversationCreate, "Create a conversation, or find a direct one")
        .body(),
    route(Method::GET, "/conversations/{conversation}", FrameType::ConversationGet, "A conversation and its members"),
    route(Method::PATCH, "/conversations/{conversation}", FrameType::ConversationUpdate, "Change a conversation")
        .body(),
    route(Method::DELETE, "/conversations/{conversation}", FrameType::ConversationDelete, "Delete a conversation"),
    route(Method::POST, "/conversations/{conversation}/members", FrameType::MemberAdd, "Add members").body(),
    route(Method::DELETE, "/conversations/{conversation}/members/{user}", FrameType::MemberRemove, "Remove a member"),
    route(
        Method::PUT,
        "/conversations/{conversation}/members/{user}/role",
        FrameType::MemberSetRole,
        "Change a member's role",
    )
    .body(),
    route(Method::POST, "/conversations/{conversation}/join", FrameType::Join, "Join an open conversation"),
    route(Method::POST, "/conversations/{conversation}/leave", FrameType::Leave, "Leave a conversation"),
    route(
        Method::PATCH,
        "/conversations/{conversation}/preferences",
        FrameType::Preferences,
        "Pin or mute a conversation for oneself",
    )
    .body(),
    route(
        Method::POST,
        "/logs/{log}/events",
        FrameType::Send,
        "Send a message, or what edits, redacts or reacts to one",
    )
    .body(),
    route(Method::GET, "/logs/{log}/events", FrameType::Fetch, "Events of a log, a page of them")
        .query(PAGE)
        .fixed("\"view\":\"events\""),
    route(Method::GET, "/logs/{log}/messages", FrameType::Fetch, "Messages as they stand, a page of them")
        .query(PAGE)
        .fixed("\"view\":\"messages\""),
    route(Method::PUT, "/logs/{log}/cursor", FrameType::Cursor, "Move one's own delivered and read positions").body(),
    route(Method::POST, "/logs/{log}/signals", FrameType::Signal, "Send a signal, as typing").body(),
    route(Method::POST, "/logs/{log}/hides", FrameType::Hide, "Hide an event from oneself").body(),
    route(Method::PUT, "/users/{user}/block", FrameType::Block, "Block a user, or no more").body(),
    route(Method::POST, "/users/{user}/revoke", FrameType::Revoke, "End a user's sessions and void their older tokens"),
    route(Method::PUT, "/presence", FrameType::PresenceSet, "Say how one is shown while present").body(),
    route(Method::POST, "/import", FrameType::Import, "Bring in up to 100 events of another system, with their times")
        .body(),
];

/// Method, path below `/api/v1` and frame of every request that is a frame.
pub fn requests() -> impl Iterator<Item = (&'static str, &'static str, FrameType)> {
    ROUTES.iter().map(|route| (route.method.as_str(), route.path, route.frame))
}
