//! The gateway: the protocol for those who cannot speak QUIC. `protocol/SPEC.md` says what it promises.
//!
//! | module | holds |
//! |---|---|
//! | [`json`] | frames in their JSON form (section 13); pure |

pub mod json;
