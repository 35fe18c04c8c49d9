//! Tickets: a token sealed for reading one log, for clients that cannot send a header, as `EventSource`.
//!
//! A ticket is a token's nonce and ciphertext (AES-256-GCM), with the log inside. Every worker of every gateway with the
//! same edge key opens it; nothing is stored. It ends with its token.

use antiphon_protocol::{ErrorCode, control};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

use super::session::refusal;

/// Seals and opens tickets.
#[derive(Debug, Clone)]
pub(crate) struct Tickets(LessSafeKey);

impl Tickets {
    /// Tickets of every gateway that has this secret.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        let key = digest(&SHA256, &[b"antiphon tickets\0", secret].concat());
        UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// A ticket for a log with the rights of a token.
    pub(super) fn seal(&self, log: &str, token: &str) -> Result<String, control::Error> {
        let failed = |_| refusal(ErrorCode::Internal, "", "no ticket can be made now");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = format!("{log}\n{token}").into_bytes();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce_of, Aad::empty(), &mut sealed).map_err(failed)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The log and the token of a ticket.
    pub(super) fn open(&self, ticket: &str) -> Result<(String, String), control::Error> {
        let wrong = || refusal(ErrorCode::TokenInvalid, "ticket", "the ticket is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(ticket).map_err(|_| wrong())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut sealed).map_err(|_| wrong())?;
        let text = std::str::from_utf8(opened).map_err(|_| wrong())?;
        let (log, token) = text.split_once('\n').ok_or_else(wrong)?;
        Ok((log.to_owned(), token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_with_the_same_secret_and_unchanged_only() {
        let tickets = Tickets::new(b"secret").unwrap();
        let ticket = tickets.seal("c:tea", "a.b.c").unwrap();
        assert_eq!(tickets.open(&ticket).unwrap(), ("c:tea".to_owned(), "a.b.c".to_owned()));
        assert!(Tickets::new(b"other").unwrap().open(&ticket).is_err());
        let mut changed = ticket.into_bytes();
        changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
        for wrong in [String::from_utf8(changed).unwrap(), String::new(), "%".into(), "AAAA".into()] {
            assert_eq!(tickets.open(&wrong).unwrap_err().code, "token_invalid");
        }
    }
}
