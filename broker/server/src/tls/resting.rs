//! Keys of QUIC that are small while they rest.
//!
//! A key of 32 bytes takes 300 to 600 once it is expanded for use, and a connection has six: two for headers, two for
//! packets, and two for packets after the next key update, which may never come. Here a connection keeps what they are
//! expanded from, and each thread keeps, expanded, those that it has used lately: [`let_rest`] gives up the others. To
//! expand one again takes about as long as to fetch an expanded one that no cache of the processor holds any more.

use std::sync::LazyLock;

use rustls::{
    CipherSuiteCommon, Error, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CryptoProvider,
        cipher::{AeadKey, Iv, NONCE_LEN},
        ring::default_provider,
    },
    quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag},
};
use zeroize::Zeroizing;

use super::expanded::{Expanded, Owner};

/// Bytes of the keys that can rest, those of AES-256 and ChaCha20. Keys of AES-128, which are shorter, stay expanded.
const KEY_LEN: usize = 32;
/// Bytes of a [`Tag`].
const TAG_LEN: usize = 16;
/// Bytes that the mask of a header is made of, in every suite for QUIC.
const SAMPLE_LEN: usize = 16;

thread_local! {
    static PACKET_KEYS: Expanded<Box<dyn PacketKey>> = const { Expanded::new() };
    static HEADER_KEYS: Expanded<Box<dyn HeaderProtectionKey>> = const { Expanded::new() };
}

/// The provider (ring), its keys for QUIC able to rest.
pub(super) fn provider() -> CryptoProvider {
    static ALGORITHMS: LazyLock<Vec<Option<Resting>>> = LazyLock::new(|| suites().map(Resting::of).collect());
    static SUITES: LazyLock<Vec<Tls13CipherSuite>> =
        LazyLock::new(|| suites().zip(ALGORITHMS.iter()).map(|(suite, resting)| with_keys(suite, resting)).collect());
    CryptoProvider { cipher_suites: SUITES.iter().map(SupportedCipherSuite::Tls13).collect(), ..default_provider() }
}

fn suites() -> impl Iterator<Item = &'static Tls13CipherSuite> {
    default_provider().cipher_suites.into_iter().filter_map(|suite| suite.tls13())
}

fn with_keys(suite: &Tls13CipherSuite, resting: &'static Option<Resting>) -> Tls13CipherSuite {
    let Tls13CipherSuite { common, hkdf_provider, aead_alg, quic } = suite;
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: common.suite,
            hash_provider: common.hash_provider,
            confidentiality_limit: common.confidentiality_limit,
        },
        hkdf_provider: *hkdf_provider,
        aead_alg: *aead_alg,
        quic: resting.as_ref().map(|resting| resting as _).or(*quic),
    }
}

/// Lets the keys rest that this thread has not used since the last call.
pub(crate) fn let_rest() {
    PACKET_KEYS.with(Expanded::let_rest);
    HEADER_KEYS.with(Expanded::let_rest);
}

/// Makes QUIC's keys of a suite, which `expanded` expands.
struct Resting {
    expanded: &'static dyn Algorithm,
    limits: Limits,
}

/// How many packets a key of a suite may seal, and how many forged ones it may meet. QUIC asks before each packet, so no key
/// is expanded to answer.
#[derive(Clone, Copy)]
struct Limits {
    confidentiality: u64,
    integrity: u64,
}

impl Resting {
    fn of(suite: &Tls13CipherSuite) -> Option<Self> {
        let expanded = suite.quic.filter(|algorithm| algorithm.aead_key_len() == KEY_LEN)?;
        // Those of any of its keys.
        let key = expanded.packet_key(AeadKey::from([0; KEY_LEN]), Iv::default());
        let limits = Limits { confidentiality: key.confidentiality_limit(), integrity: key.integrity_limit() };
        Some(Self { expanded, limits })
    }
}

impl Algorithm for Resting {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        match Material::new(self.expanded, &key, &iv) {
            Some(material) => Box::new(RestingPacketKey { material, limits: self.limits }),
            None => self.expanded.packet_key(key, iv),
        }
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        match Material::new(self.expanded, &key, &Iv::default()) {
            Some(material) => Box::new(RestingHeaderKey(material)),
            None => self.expanded.header_protection_key(key),
        }
    }

    fn aead_key_len(&self) -> usize {
        self.expanded.aead_key_len()
    }

    fn fips(&self) -> bool {
        self.expanded.fips()
    }
}

/// What a key is expanded from.
struct Material {
    algorithm: &'static dyn Algorithm,
    key: Zeroizing<[u8; KEY_LEN]>,
    /// Of a key for packets.
    iv: [u8; NONCE_LEN],
    owner: Owner,
}

impl Material {
    fn new(algorithm: &'static dyn Algorithm, key: &AeadKey, iv: &Iv) -> Option<Self> {
        let (key, iv) = (key.as_ref().try_into().ok()?, iv.as_ref().try_into().ok()?);
        Some(Self { algorithm, key: Zeroizing::new(key), iv, owner: Owner::new() })
    }

    fn key(&self) -> AeadKey {
        AeadKey::from(*self.key)
    }
}

struct RestingPacketKey {
    material: Material,
    limits: Limits,
}

impl RestingPacketKey {
    fn with<R>(&self, work: impl FnOnce(&dyn PacketKey) -> R) -> R {
        let material = &self.material;
        let expand = || material.algorithm.packet_key(material.key(), Iv::new(material.iv));
        PACKET_KEYS.with(|keys| keys.with(&material.owner, expand, |key| work(key.as_ref())))
    }
}

impl PacketKey for RestingPacketKey {
    fn encrypt_in_place(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        self.with(|key| key.encrypt_in_place(number, header, payload))
    }

    fn decrypt_in_place<'a>(&self, number: u64, header: &[u8], payload: &'a mut [u8]) -> Result<&'a [u8], Error> {
        self.with(|key| key.decrypt_in_place(number, header, payload))
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        self.limits.confidentiality
    }

    fn integrity_limit(&self) -> u64 {
        self.limits.integrity
    }
}

impl Drop for RestingPacketKey {
    fn drop(&mut self) {
        // Threads that end take their keys along.
        let _ = PACKET_KEYS.try_with(|keys| keys.forget(&self.material.owner));
    }
}

struct RestingHeaderKey(Material);

impl RestingHeaderKey {
    fn with<R>(&self, work: impl FnOnce(&dyn HeaderProtectionKey) -> R) -> R {
        let expand = || self.0.algorithm.header_protection_key(self.0.key());
        HEADER_KEYS.with(|keys| keys.with(&self.0.owner, expand, |key| work(key.as_ref())))
    }
}

impl HeaderProtectionKey for RestingHeaderKey {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.with(|key| key.encrypt_in_place(sample, first, number))
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.with(|key| key.decrypt_in_place(sample, first, number))
    }

    fn sample_len(&self) -> usize {
        SAMPLE_LEN
    }
}

impl Drop for RestingHeaderKey {
    fn drop(&mut self) {
        let _ = HEADER_KEYS.try_with(|keys| keys.forget(&self.0.owner));
    }
}

/// How many keys for packets this thread keeps expanded.
#[cfg(test)]
pub(super) fn kept_packet_keys() -> usize {
    PACKET_KEYS.with(Expanded::len)
}

#[cfg(test)]
mod tests;
