//! The SDK over real QUIC: against a broker of a few lines that keeps one log in memory, and against the real one.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod client;
#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod network;
#[cfg(test)]
mod real;
#[cfg(test)]
mod redis;
#[cfg(test)]
#[path = "../../../../storage/redis/tests/it/support/server.rs"]
mod redis_server;
#[cfg(test)]
mod websocket;
