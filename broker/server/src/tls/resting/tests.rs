use rustls::{
    Side,
    quic::{Keys, Suite, Version},
};

use super::*;

/// The same keys twice: as the provider makes them, and able to rest.
fn both(suite: SupportedCipherSuite) -> [Keys; 2] {
    let find = |provider: CryptoProvider| {
        let found = provider.cipher_suites.into_iter().find(|candidate| candidate.suite() == suite.suite()).unwrap();
        Suite { suite: found.tls13().unwrap(), quic: found.tls13().unwrap().quic.unwrap() }
    };
    [default_provider(), provider()].map(|provider| find(provider).keys(b"first id", Side::Server, Version::V1))
}

fn every_suite() -> Vec<SupportedCipherSuite> {
    let suites = provider().cipher_suites;
    assert_eq!(suites.len(), 3);
    suites
}

fn kept_header_keys() -> usize {
    HEADER_KEYS.with(Expanded::len)
}

fn sealed(key: &dyn PacketKey, number: u64) -> Vec<u8> {
    let mut bytes = b"hello".to_vec();
    let tag = key.encrypt_in_place(number, b"header", &mut bytes).unwrap();
    bytes.extend_from_slice(tag.as_ref());
    bytes
}

fn masked(key: &dyn HeaderProtectionKey) -> (u8, [u8; 4]) {
    let (mut first, mut number) = (0x43, [0; 4]);
    key.encrypt_in_place(&[7; SAMPLE_LEN], &mut first, &mut number).unwrap();
    (first, number)
}

#[test]
fn keys_do_the_same_before_and_after_a_rest() {
    for suite in every_suite() {
        let [expanded, resting] = both(suite);
        for number in 0..3 {
            assert_eq!(sealed(&*resting.local.packet, number), sealed(&*expanded.local.packet, number));
            let mut packet = sealed(&*expanded.remote.packet, number);
            assert_eq!(resting.remote.packet.decrypt_in_place(number, b"header", &mut packet).unwrap(), b"hello");
            let mut forged = sealed(&*expanded.local.packet, number);
            assert!(resting.remote.packet.decrypt_in_place(number, b"header", &mut forged).is_err());
            assert_eq!(masked(&*resting.local.header), masked(&*expanded.local.header));
            let (mut first, mut bytes) = masked(&*expanded.remote.header);
            resting.remote.header.decrypt_in_place(&[7; SAMPLE_LEN], &mut first, &mut bytes).unwrap();
            assert_eq!((first, bytes), (0x43, [0; 4]));
            (0..2).for_each(|_| let_rest());
            assert_eq!((kept_packet_keys(), kept_header_keys()), (0, 0));
        }
    }
}

#[test]
fn keys_have_the_limits_of_their_suite() {
    for suite in every_suite() {
        let [expanded, resting] = both(suite);
        let limits = |keys: &Keys| {
            let (packet, header) = (&keys.local.packet, &keys.local.header);
            (packet.tag_len(), packet.confidentiality_limit(), packet.integrity_limit(), header.sample_len())
        };
        assert_eq!(limits(&resting), limits(&expanded));
    }
}

#[test]
fn only_what_is_used_is_kept_and_nothing_of_what_is_gone() {
    let [_, keys] = both(rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384);
    assert_eq!((kept_packet_keys(), kept_header_keys()), (0, 0));
    sealed(&*keys.local.packet, 1);
    masked(&*keys.remote.header);
    assert_eq!((kept_packet_keys(), kept_header_keys()), (1, 1));
    let_rest();
    masked(&*keys.remote.header);
    let_rest();
    assert_eq!((kept_packet_keys(), kept_header_keys()), (0, 1));
    drop(keys);
    assert_eq!((kept_packet_keys(), kept_header_keys()), (0, 0));
}

#[test]
fn a_key_may_be_used_by_any_thread() {
    let [expanded, resting] = both(rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
    let here = sealed(&*resting.local.packet, 1);
    let (resting, there) = std::thread::spawn(move || {
        // Another key has the same place here.
        let [_, other] = both(rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384);
        sealed(&*other.local.packet, 1);
        let sealed = sealed(&*resting.local.packet, 1);
        (resting, sealed)
    })
    .join()
    .unwrap();
    let expected = sealed(&*expanded.local.packet, 1);
    assert_eq!([&here, &there, &sealed(&*resting.local.packet, 1)], [&expected; 3]);
}
