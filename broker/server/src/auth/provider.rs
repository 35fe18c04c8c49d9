//! Signatures for jsonwebtoken, done by ring.
//!
//! The crate leaves cryptography to a provider installed once per process. Its own two would bring a second
//! implementation next to the one TLS uses; this one knows exactly the four algorithms that we accept.

use std::sync::OnceLock;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{Error as SignatureError, Signer, Verifier},
};
use ring::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

use super::VerifierError;

static RING: CryptoProvider =
    CryptoProvider { signer_factory, verifier_factory, key_utils: KeyUtils::new_unimplemented() };

/// Installs the provider on the first call; every call says whether it is ours that is installed.
pub(super) fn install() -> Result<(), VerifierError> {
    static OURS: OnceLock<bool> = OnceLock::new();
    let ours = OURS.get_or_init(|| RING.install_default().is_ok());
    if *ours { Ok(()) } else { Err(VerifierError::ForeignProvider) }
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match algorithm {
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes());
            Ok(Box::new(Ed25519Signer(pair.map_err(|_| ErrorKind::InvalidEddsaKey)?)))
        }
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // The verifier passes the key's own algorithm; a key of another family means a fault of ours, never a choice.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let material = match (algorithm, key.kind()) {
        (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
            Material::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret))
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => Material::whole(&ED25519, key),
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(key)) => Material::whole(&ECDSA_P256_SHA256_FIXED, key),
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(key)) => Material::whole(&RSA_PKCS1_2048_8192_SHA256, key),
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Material::Rsa(PublicKeyComponents { n: n.clone(), e: e.clone() })
        }
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, material }))
}

struct Ed25519Signer(Ed25519KeyPair);

impl Signer<Vec<u8>> for Ed25519Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for Ed25519Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Hmac(hmac::Key),
    Whole(UnparsedPublicKey<Vec<u8>>),
    Rsa(PublicKeyComponents<Vec<u8>>),
}

impl Material {
    fn whole(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Self {
        Self::Whole(UnparsedPublicKey::new(algorithm, key.to_vec()))
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let checked = match &self.material {
            Material::Hmac(key) => hmac::verify(key, message, signature),
            Material::Whole(key) => key.verify(message, signature),
            Material::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        };
        checked.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
