//! One file per command.

pub(crate) mod backup;
pub(crate) mod check_config;
pub(crate) mod copy;
mod event_line;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod import;
mod message_line;
pub(crate) mod publish;
pub(crate) mod restore;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod subscribe;
pub(crate) mod token;
pub(crate) mod verify;
