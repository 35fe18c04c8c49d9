//! Verification keys and the files that hold them.

use std::{fmt, fs, path::Path, str::FromStr};

use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{IssuerKey, KeyError};

/// How tokens are signed. Nothing else is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256, 2,048 bits and more.
    Rs256,
    /// HMAC with SHA-256; the issuer and the broker share the secret.
    Hs256,
}

impl Algorithm {
    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let all = [Self::EdDsa, Self::Es256, Self::Rs256, Self::Hs256];
        all.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The algorithms are EdDSA, ES256, RS256 and HS256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected EdDSA, ES256, RS256 or HS256")]
pub struct UnknownAlgorithm;

/// A key that proves signatures of exactly one algorithm. Erased from memory when dropped.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A raw 32-byte Ed25519 public key.
    pub fn ed25519(public: &[u8; 32]) -> Self {
        Self { algorithm: Algorithm::EdDsa, key: DecodingKey::from_ed_der(public) }
    }

    /// A secret shared with the issuer, at least 32 bytes.
    pub fn hmac(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < 32 {
            return Err(KeyError::SecretTooShort(secret.len()));
        }
        Ok(Self { algorithm: Algorithm::Hs256, key: DecodingKey::from_secret(secret) })
    }

    /// A PEM public key (`BEGIN PUBLIC KEY`) of the type that `algorithm` needs.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        let key = public_key(algorithm, &info).ok_or(KeyError::WrongType(algorithm))?;
        match algorithm {
            Algorithm::EdDsa => Self::checked(algorithm, DecodingKey::from_ed_der(key)),
            Algorithm::Es256 => Self::checked(algorithm, DecodingKey::from_ec_der(key)),
            Algorithm::Rs256 => Self::checked(algorithm, DecodingKey::from_rsa_der(key)),
            Algorithm::Hs256 => Err(KeyError::WrongType(algorithm)),
        }
    }

    /// Reads a key file: PEM for the public-key algorithms; the bare secret for HS256, one trailing line end ignored.
    pub fn from_file(algorithm: Algorithm, path: &Path) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(fs::read(path)?);
        match algorithm {
            Algorithm::Hs256 => {
                let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                Self::hmac(line.strip_suffix(b"\r").unwrap_or(line))
            }
            _ => Self::from_pem(algorithm, &bytes),
        }
    }

    /// The one algorithm of this key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }

    /// Refuses public keys whose size their algorithm does not allow.
    fn checked(algorithm: Algorithm, key: DecodingKey) -> Result<Self, KeyError> {
        let modulus = match (algorithm, key.kind()) {
            (Algorithm::EdDsa, DecodingKeyKind::SecretOrDer(point)) if point.len() == 32 => None,
            (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) if point.len() == 65 && point[0] == 4 => None,
            (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(der)) => rsa_modulus(der),
            (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, .. }) => Some(n.as_slice()),
            _ => return Err(KeyError::WrongType(algorithm)),
        };
        match (algorithm, modulus.map(bits)) {
            (Algorithm::Rs256, None) => Err(KeyError::WrongType(algorithm)),
            (Algorithm::Rs256, Some(bits)) if !(2_048..=8_192).contains(&bits) => Err(KeyError::RsaBits(bits)),
            _ => Ok(Self { algorithm, key }),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm)
    }
}

/// Reads a JSON Web Key Set file (RFC 7517). Keys for encryption and of unsupported types are left out; a key without
/// `kid`, a shared secret, or a set without any usable key is an error.
pub fn read_key_set(path: &Path) -> Result<Vec<IssuerKey>, KeyError> {
    parse_key_set(&fs::read(path)?)
}

fn parse_key_set(json: &[u8]) -> Result<Vec<IssuerKey>, KeyError> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|_| KeyError::KeySet("this is none"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let Some(algorithm) = signing_algorithm(jwk)? else { continue };
        let id = jwk.common.key_id.clone().ok_or(KeyError::KeySet("a key has no kid"))?;
        let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::KeySet("a key is not base64url"))?;
        keys.push(IssuerKey { id: Some(id), key: VerifyingKey::checked(algorithm, key)? });
    }
    if keys.is_empty() { Err(KeyError::KeySet("no usable key")) } else { Ok(keys) }
}

/// The algorithm a JWK is for, or `None` if it is not one for our signatures.
fn signing_algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, KeyError> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDsa,
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => Algorithm::Es256,
        AlgorithmParameters::RSA(_) => Algorithm::Rs256,
        AlgorithmParameters::OctetKey(_) => return Err(KeyError::KeySet("a shared secret has no place in it")),
        _ => return Ok(None),
    };
    let named = match jwk.common.key_algorithm {
        None => Some(algorithm),
        Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDsa),
        Some(KeyAlgorithm::ES256) => Some(Algorithm::Es256),
        Some(KeyAlgorithm::RS256) => Some(Algorithm::Rs256),
        Some(_) => None,
    };
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    Ok((signs && named == Some(algorithm)).then_some(algorithm))
}

/// The bare key inside a SubjectPublicKeyInfo, if its type is the one `algorithm` needs.
fn public_key(algorithm: Algorithm, info: &[u8]) -> Option<&[u8]> {
    // The whole AlgorithmIdentifier contents: object identifier, then curve or NULL.
    const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
        0x07,
    ];
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

    let expected = match algorithm {
        Algorithm::EdDsa => ED25519,
        Algorithm::Es256 => P256,
        Algorithm::Rs256 => RSA,
        Algorithm::Hs256 => return None,
    };
    let (sequence, []) = der_value(info, 0x30)? else { return None };
    let (identifier, rest) = der_value(sequence, 0x30)?;
    let (bit_string, []) = der_value(rest, 0x03)? else { return None };
    let (0, key) = bit_string.split_first().map(|(unused_bits, key)| (*unused_bits, key))? else { return None };
    (identifier == expected).then_some(key)
}

fn rsa_modulus(public_key: &[u8]) -> Option<&[u8]> {
    let (sequence, []) = der_value(public_key, 0x30)? else { return None };
    let (modulus, rest) = der_value(sequence, 0x02)?;
    let (_exponent, []) = der_value(rest, 0x02)? else { return None };
    Some(modulus)
}

/// Splits one DER value with this tag from its successors: (contents, rest).
fn der_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = input.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn bits(integer: &[u8]) -> usize {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    let significant = &integer[zeros..];
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_2048: &[u8] = include_bytes!("../../tests/fixtures/rsa-2048-public.pem");
    const RSA_1024: &[u8] = include_bytes!("../../tests/fixtures/rsa-1024-public.pem");
    const P256: &[u8] = include_bytes!("../../tests/fixtures/p256-public.pem");
    const P384: &[u8] = include_bytes!("../../tests/fixtures/p384-public.pem");
    const ED25519: &[u8] = include_bytes!("../../tests/fixtures/ed25519-public.pem");
    const KEY_SET: &str = include_str!("../../tests/fixtures/jwks.json");

    #[test]
    fn a_pem_key_fits_only_its_own_algorithm() {
        let keys = [(Algorithm::EdDsa, ED25519), (Algorithm::Es256, P256), (Algorithm::Rs256, RSA_2048)];
        for (of, pem) in keys {
            for (algorithm, _) in keys {
                let read = VerifyingKey::from_pem(algorithm, pem);
                assert_eq!(read.is_ok(), of == algorithm, "{of} key read as {algorithm}");
            }
            assert!(matches!(VerifyingKey::from_pem(Algorithm::Hs256, pem), Err(KeyError::WrongType(_))));
        }
    }

    #[test]
    fn weak_foreign_and_private_keys_are_refused() {
        assert!(matches!(VerifyingKey::from_pem(Algorithm::Rs256, RSA_1024), Err(KeyError::RsaBits(1024))));
        assert!(matches!(VerifyingKey::from_pem(Algorithm::Es256, P384), Err(KeyError::WrongType(_))));
        assert!(matches!(VerifyingKey::from_pem(Algorithm::EdDsa, b"hello"), Err(KeyError::NotPem)));
        let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(VerifyingKey::from_pem(Algorithm::Es256, private.as_bytes()), Err(KeyError::PrivateKey)));
        assert!(matches!(VerifyingKey::hmac(&[7; 31]), Err(KeyError::SecretTooShort(31))));
    }

    #[test]
    fn no_cut_or_flipped_key_file_panics() {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(RSA_2048).unwrap();
        for end in 0..info.len() {
            assert_eq!(public_key(Algorithm::Rs256, &info[..end]), None);
        }
        let key = public_key(Algorithm::Rs256, &info).unwrap().to_vec();
        for at in 0..12 {
            for value in 0..=255 {
                let mut flipped = key.clone();
                flipped[at] = value;
                if let Some(modulus) = rsa_modulus(&flipped) {
                    // A changed sign byte counts as eight digits more.
                    assert!(bits(modulus) <= 2_056, "byte {at} = {value}");
                }
            }
        }
    }

    #[test]
    fn a_secret_file_loses_one_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, accepted) in [("a".repeat(32) + "\r\n", true), ("a".repeat(31) + "\n", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(VerifyingKey::from_file(Algorithm::Hs256, &path).is_ok(), accepted);
        }
        let absent = VerifyingKey::from_file(Algorithm::Hs256, &folder.path().join("none"));
        assert!(matches!(absent, Err(KeyError::Unreadable(_))));
    }

    #[test]
    fn a_key_set_gives_its_signing_keys() {
        let keys = parse_key_set(KEY_SET.as_bytes()).unwrap();
        let found: Vec<_> = keys.iter().map(|key| (key.id.as_deref().unwrap(), key.key.algorithm())).collect();
        assert_eq!(found, [("ed", Algorithm::EdDsa), ("ec", Algorithm::Es256), ("rsa", Algorithm::Rs256)]);
    }

    #[test]
    fn a_key_set_with_a_secret_or_without_ids_is_refused() {
        for set in [
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"?"}]}"#,
        ] {
            assert!(parse_key_set(set.as_bytes()).is_err(), "{set}");
        }
    }

    #[test]
    fn keys_never_print_their_bytes() {
        let key = VerifyingKey::hmac(b"marker-secret-marker-secret-marker").unwrap();
        assert_eq!(format!("{key:?}"), "VerifyingKey(HS256)");
    }
}
