//! Access tokens: who may say what, and how it is proven.
//!
//! ```text
//! token -> size -> three parts -> header -> issuer -> key (issuer, kid) -> signature -> claims -> Claims
//! ```
//!
//! Invariants, after RFC 8725:
//! - the configured key decides the algorithm; the header may only repeat it;
//! - keys come from files named in the configuration. Nothing in a token ever causes a fetch, and a key counts for its
//!   own issuer only, so equal key ids of two issuers never meet;
//! - the tenant comes from the issuer's list; an issuer cannot sign for another's tenant;
//! - every claim that is read is required to be there and of its type: a string `exp` is an error, not an absent `exp`;
//! - an error names the reason and the claim, never the token or a value in it.
//!
//! Absent on purpose: refresh tokens, revocation lists (the user owner compares `iat` with `not_before`), any clock
//! (the caller passes the time).

mod cache;
mod claims;
mod error;
mod issuer;
mod json;
mod key;
mod minter;
mod provider;
mod verifier;

pub use cache::TokenCache;
pub use error::{KeyError, TokenError, VerifierError};
pub use issuer::{ClaimMapping, ClaimPath, IssuerConfig, IssuerKey, IssuerPolicy, TenantSource};
pub use key::{Algorithm, VerifyingKey, read_key_set};
pub use minter::{MintError, Minter, TokenRequest};
pub use verifier::Verifier;

#[cfg(test)]
mod hostile;
