//! The binary as its user runs it: real processes, real sockets, real files.

mod broker;
mod operating;
mod talking;
