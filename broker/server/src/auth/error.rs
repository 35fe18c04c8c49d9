//! Why a token, a key or an issuer is refused.

use antiphon_protocol::{ErrorCode, limits::TOKEN_BYTES_MAX};
use thiserror::Error;

/// Why a token is refused. Never holds the token or a value from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TokenError {
    /// Refused before any byte is parsed.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    /// Not `header.payload.signature`.
    #[error("a token has three parts separated by dots")]
    Shape,
    /// A part is not unpadded base64url.
    #[error("the token's {part} is not unpadded base64url")]
    Encoding {
        /// Header, payload or signature.
        part: &'static str,
    },
    /// A part is not a JSON object of bounded depth.
    #[error("the token's {part} is not a JSON object")]
    Json {
        /// Header or payload.
        part: &'static str,
    },
    /// Two members of one object have the same name.
    #[error("the token's {part} names a member twice")]
    DuplicateKey {
        /// Header or payload.
        part: &'static str,
    },
    /// The header tries to bring its own key or changes how the token is read.
    #[error("the token's header may not hold {field}")]
    HeaderField {
        /// The member.
        field: &'static str,
    },
    /// `typ` is neither `JWT` nor `at+jwt`.
    #[error("the token's typ must be JWT, at+jwt or absent")]
    Type,
    /// `alg` is absent, `none`, or none of ours.
    #[error("the token's alg must be one of EdDSA, ES256, RS256, HS256")]
    AlgorithmUnsupported,
    /// `alg` differs from the key's.
    #[error("the token's alg differs from that of its key")]
    AlgorithmMismatch,
    /// `kid` is not a string.
    #[error("the token's kid must be a string")]
    KeyId,
    /// `iss` is not configured.
    #[error("the token's issuer is not configured")]
    IssuerUnknown,
    /// The issuer has no key of that id.
    #[error("the token's issuer has no key of that id")]
    KeyUnknown,
    /// The signature does not fit.
    #[error("the token's signature does not fit")]
    Signature,
    /// A required claim is absent.
    #[error("the token lacks {claim}")]
    ClaimMissing {
        /// The claim.
        claim: &'static str,
    },
    /// A claim has the wrong JSON type or range.
    #[error("the token's {claim} has the wrong type")]
    ClaimType {
        /// The claim.
        claim: &'static str,
    },
    /// A text claim is empty, too long or holds control characters.
    #[error("the token's {claim} is empty, too long or holds control characters")]
    ClaimText {
        /// The claim.
        claim: &'static str,
    },
    /// A claim is not an id.
    #[error("the token's {claim} is not an id: 1 to 64 of A-Z a-z 0-9 . _ : @ | ~ -")]
    ClaimId {
        /// The claim.
        claim: &'static str,
    },
    /// Ids that begin with `~` are made by the broker.
    #[error("the token's {claim} begins with ~, which is reserved")]
    ClaimIdReserved {
        /// The claim.
        claim: &'static str,
    },
    /// The `antiphon` claim holds a member that this version does not know.
    #[error("the token's {claim} holds an unknown member")]
    ClaimUnknown {
        /// The object.
        claim: &'static str,
    },
    /// The token is meant for someone else.
    #[error("the token's aud does not name this broker")]
    Audience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` has not come.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `exp` is not after `iat`.
    #[error("the token's exp is not after its iat")]
    LifetimeEmpty,
    /// A user's token lives longer than a day.
    #[error("a user's token may live 24 hours at most")]
    LifetimeTooLong,
    /// `antiphon.v` is not 1.
    #[error("the token's antiphon.v must be 1")]
    VersionUnsupported,
    /// The issuer may not sign for that tenant.
    #[error("the token's issuer may not sign for that tenant")]
    TenantNotAllowed,
    /// `antiphon.kind` is none of ours.
    #[error("the token's antiphon.kind must be user, service, worker or edge")]
    KindUnknown,
    /// A grant has an unknown shape, pattern or ability, or there are too many.
    #[error("the token's antiphon.grants are not valid")]
    GrantInvalid,
    /// A scope is none of ours.
    #[error("the token's antiphon.scopes hold an unknown scope")]
    ScopeUnknown,
    /// Only services may act for others.
    #[error("the scope act_as is for tokens of kind service")]
    ScopeNotAllowed,
    /// `antiphon.limits` asks for limits that this version cannot enforce.
    #[error("the token's antiphon.limits are not supported")]
    LimitsUnsupported,
    /// The issuer's claims come from the configuration, yet the token brings its own.
    #[error("the issuer's configuration replaces the token's antiphon claim")]
    AntiphonUnexpected,
}

impl TokenError {
    /// The stable word for the reason, for logs, counters and clients.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Shape => "token_shape",
            Self::Encoding { .. } => "token_encoding",
            Self::Json { .. } => "token_json",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::HeaderField { .. } => "header_forbidden",
            Self::Type => "token_type",
            Self::AlgorithmUnsupported => "algorithm_unsupported",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::KeyId => "key_id",
            Self::IssuerUnknown => "issuer_unknown",
            Self::KeyUnknown => "key_unknown",
            Self::Signature => "signature",
            Self::ClaimMissing { .. } => "claim_missing",
            Self::ClaimType { .. } => "claim_type",
            Self::ClaimText { .. } => "claim_text",
            Self::ClaimId { .. } => "claim_id",
            Self::ClaimIdReserved { .. } => "claim_id_reserved",
            Self::ClaimUnknown { .. } => "claim_unknown",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::LifetimeEmpty => "lifetime_empty",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::VersionUnsupported => "version_unsupported",
            Self::TenantNotAllowed => "tenant_not_allowed",
            Self::KindUnknown => "kind_unknown",
            Self::GrantInvalid => "grant_invalid",
            Self::ScopeUnknown => "scope_unknown",
            Self::ScopeNotAllowed => "scope_not_allowed",
            Self::LimitsUnsupported => "limits_unsupported",
            Self::AntiphonUnexpected => "antiphon_unexpected",
        }
    }

    /// The code that tells the peer.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::TokenInvalid,
        }
    }
}

/// Why a key cannot be used. The operator is at fault.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Not a PEM public key.
    #[error("expected one PEM block, PUBLIC KEY or RSA PUBLIC KEY")]
    NotPem,
    /// A private key where a public one belongs.
    #[error("holds a private key; expected the public key only")]
    PrivateKey,
    /// The key's type does not fit the algorithm.
    #[error("is not a key for {0}")]
    WrongType(super::Algorithm),
    /// RSA below 2,048 or above 8,192 bits.
    #[error("an RSA key has 2048 to 8192 bits, this one has {0}")]
    RsaBits(usize),
    /// HMAC secrets need as much entropy as their hash has bits.
    #[error("an HS256 secret has at least 32 bytes, this one has {0}")]
    SecretTooShort(usize),
    /// Not a JWKS of verification keys.
    #[error("expected a JSON Web Key Set of signing keys with ids: {0}")]
    KeySet(&'static str),
}

/// Why issuers do not make a verifier. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifierError {
    /// A setting of one issuer is wrong.
    #[error("issuer {issuer:?}: {reason}")]
    Issuer {
        /// Its name.
        issuer: String,
        /// What was expected.
        reason: &'static str,
    },
    /// Something else in the process chose the signature code first.
    #[error("another library has installed its own token cryptography in this process")]
    ForeignProvider,
}
