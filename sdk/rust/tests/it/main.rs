//! The SDK over real QUIC, against a broker of a few lines that keeps one log in memory.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod client;
