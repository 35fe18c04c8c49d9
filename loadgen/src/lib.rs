//! Antiphon's load generator: replays conversations against a broker through the Rust SDK, and proves while doing so
//! that nothing was lost, repeated or reordered.
//!
//! Flow: [`corpus`] (a file that the user names) or [`synthetic`] -> [`merge`] into groups -> [`schedule`] -> [`run`]:
//! [`stage`] makes conversations and one [`session`] per member, the [`pacer`] hands out what falls due, a [`fault`] may
//! disturb (a [`store_watch`] tells it when), and the [`recorder`] tells everything to `antiphon-checker` -> [`report`]. The [`target`] is a [`broker`] of
//! the run's own or one that runs already; a [`probe`] reads what its process and metrics say.
//!
//! The [`carrier`] of a session is QUIC or a WebSocket, binary or JSON, through the broker's gateway or a [`gateway`] of its
//! own.
//!
//! Beside replays there are loads that each measure one figure, [`measured`] in the same way: [`fanout`], [`publish`], [`spread`],
//! [`history`] and [`idle`] on sessions that are bare QUIC ([`wire`]), [`stall`] and [`storm`] on SDK clients, [`sockets`] on bare
//! WebSockets ([`websocket`]).
//!
//! [`versus`] does the work of some of them with the broker, with other servers and with less than a broker ([`control`]) in
//! turn, in [`rounds`].
//!
//! [`import`] brings a [`history_file`] in, as from another system, with kills in between.
//!
//! [`full`] runs a broker on a [`small_disk`] that becomes full.
//!
//! Invariants: a replay is open-loop and follows from the seed; every delivery is checked at its receiver; a run that
//! broke a promise ends with a non-zero exit code whatever its figures. Deliberately absent: any chat text.

mod blocks;
pub mod broker;
pub mod carrier;
pub mod cassandra;
pub mod chance;
pub mod cli;
mod clock;
pub mod control;
pub mod corpus;
pub mod describe;
pub mod fanout;
pub mod fault;
pub mod follower;
mod front;
pub mod full;
mod full_sender;
pub mod gateway;
pub mod history;
pub mod history_file;
pub mod idle;
pub mod import;
mod json_codec;
pub mod loopback;
pub mod machine;
pub mod measured;
pub mod merge;
pub mod moving;
pub mod names;
pub mod pacer;
mod payload;
pub mod probe;
pub mod publish;
mod ready;
pub mod recorder;
pub mod report;
mod rooms;
pub mod rounds;
pub mod run;
pub mod schedule;
pub mod session;
pub mod small_disk;
mod socket_reader;
pub mod sockets;
pub mod spread;
pub mod stage;
pub mod stall;
pub mod store_watch;
pub mod storm;
pub mod synthetic;
pub mod target;
mod tickets;
pub mod tokens;
pub mod versus;
pub mod websocket;
pub mod wire;
pub mod workload;
