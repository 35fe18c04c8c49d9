//! The servers that a broker is compared with: started as processes of their own, and spoken to over TLS
//! or plain TCP.
//!
//! A [`Server`] is a peer's program from this machine, found by [`Program`], with a [`Certificate`] that all contenders
//! share. A [`Connection`] speaks its protocol through a [`Codec`], which is bytes in and bytes out. Servers for browsers
//! are spoken to in texts over plain WebSockets instead, by their [`Dialect`]. Deliberately absent: anything of the broker
//! itself, and anything that measures.

pub mod certificate;
pub mod codec;
pub mod connection;
pub mod dialect;
pub mod program;
pub mod server;

pub use certificate::Certificate;
pub use codec::{Codec, CodecError, Entry, Incoming, Position};
pub use connection::{Connection, ConnectionError};
pub use dialect::{Dialect, Exchange, Line};
pub use program::{Missing, Peer, Program};
pub use server::{Keeping, Security, Server, ServerError};
