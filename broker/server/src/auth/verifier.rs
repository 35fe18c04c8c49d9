//! One token in, claims or a reason out.

use std::collections::HashMap;

use antiphon_core::claims::Claims;
use antiphon_protocol::limits::TOKEN_BYTES_MAX;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{
    IssuerConfig, TokenError, VerifierError, claims,
    issuer::IssuerPolicy,
    json::{self, JsonError, Object},
    key::{Algorithm, VerifyingKey},
    provider,
};

/// Proves tokens against a fixed set of issuers. Immutable: a reload builds a new one. Costs tens of microseconds a
/// token, so that callers keep a [`TokenCache`](super::TokenCache) and a budget.
#[derive(Debug)]
pub struct Verifier {
    issuers: HashMap<String, Issuer>,
}

#[derive(Debug)]
struct Issuer {
    policy: IssuerPolicy,
    keys: HashMap<Option<String>, VerifyingKey>,
}

impl Verifier {
    /// Takes the issuers. Errors name the issuer and what was expected of it. No issuer at all is allowed: such a
    /// verifier refuses every token.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Self, VerifierError> {
        provider::install()?;
        let mut issuers = HashMap::with_capacity(configs.len());
        for config in configs {
            config.check()?;
            let name = config.policy.issuer.clone();
            let keys = config.keys.into_iter().map(|key| (key.id, key.key)).collect();
            if issuers.insert(name.clone(), Issuer { policy: config.policy, keys }).is_some() {
                return Err(VerifierError::Issuer { issuer: name, reason: "an issuer is configured once" });
            }
        }
        Ok(Self { issuers })
    }

    /// Proves one token at this time (Unix milliseconds).
    pub fn verify(&self, token: &str, now_unix_ms: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let parts = Parts::split(token)?;
        let header = Header::read(&parse_part(parts.header, "header")?)?;
        // The payload is not proven yet: of it, only the issuer's name is looked at, to find the key.
        let payload = parse_part(parts.payload, "payload")?;
        let issuer = self.issuer_of(&payload)?;
        let key = issuer.keys.get(&header.key_id).ok_or(TokenError::KeyUnknown)?;
        if header.algorithm != key.algorithm() {
            return Err(TokenError::AlgorithmMismatch);
        }
        check_signature(&parts, key)?;
        claims::read(&payload, &issuer.policy, now_unix_ms)
    }

    fn issuer_of(&self, payload: &Object) -> Result<&Issuer, TokenError> {
        match payload.get("iss") {
            None => Err(TokenError::ClaimMissing { claim: "iss" }),
            Some(Value::String(name)) => self.issuers.get(name).ok_or(TokenError::IssuerUnknown),
            Some(_) => Err(TokenError::ClaimType { claim: "iss" }),
        }
    }
}

/// The three parts of a compact token, still encoded.
struct Parts<'t> {
    /// Header and payload with the dot between them: what is signed.
    message: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn split(token: &'t str) -> Result<Self, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Shape)?;
        if payload.contains('.') {
            return Err(TokenError::Shape);
        }
        Ok(Self { message, header, payload, signature })
    }
}

fn parse_part(encoded: &str, part: &'static str) -> Result<Object, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Encoding { part })?;
    json::parse_object(&bytes).map_err(|error| match error {
        JsonError::Syntax => TokenError::Json { part },
        JsonError::DuplicateKey => TokenError::DuplicateKey { part },
    })
}

fn check_signature(parts: &Parts<'_>, key: &VerifyingKey) -> Result<(), TokenError> {
    let proven = jsonwebtoken::crypto::verify(
        parts.signature,
        parts.message.as_bytes(),
        key.decoding_key(),
        key.algorithm().jwt(),
    );
    match proven {
        Ok(true) => Ok(()),
        Ok(false) => Err(TokenError::Signature),
        Err(_) => Err(TokenError::Encoding { part: "signature" }),
    }
}

/// What a header may say: which key, and the algorithm that the key has anyway.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Header {
    fn read(header: &Object) -> Result<Self, TokenError> {
        // Own keys, key locations, critical extensions, encryption, compression and nesting.
        const FORBIDDEN: [&str; 11] =
            ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip", "enc", "cty"];

        if let Some(field) = FORBIDDEN.into_iter().find(|field| header.contains_key(*field)) {
            return Err(TokenError::HeaderField { field });
        }
        let typed_well = match header.get("typ") {
            None => true,
            Some(Value::String(typ)) => typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt"),
            Some(_) => false,
        };
        if !typed_well {
            return Err(TokenError::Type);
        }
        let name = header.get("alg").and_then(Value::as_str).ok_or(TokenError::AlgorithmUnsupported)?;
        let algorithm = name.parse().map_err(|_| TokenError::AlgorithmUnsupported)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(TokenError::KeyId),
        };
        Ok(Self { algorithm, key_id })
    }
}
