//! Tokens an attacker would try, each with the reason it must be refused for, and tokens that must pass.

use std::collections::BTreeSet;

use antiphon_core::claims::{Abilities, Ability, ActorKind, Claims, Grant, GrantPattern};
use antiphon_protocol::TenantId;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    },
};
use serde_json::{Value, json};

use super::*;

mod cases;

/// Now, in seconds and milliseconds.
const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1_000;
const DAY: u64 = 24 * 60 * 60;
const RS256: &str = include_str!("../../tests/fixtures/rs256.jwt");
const RS256_PSS: &str = include_str!("../../tests/fixtures/rs256-pss-signature.jwt");
const RSA_PEM: &[u8] = include_bytes!("../../tests/fixtures/rsa-2048-public.pem");
const SECRET: &[u8] = b"a shared secret of more than 32 bytes";

/// (name, token, expected code)
type Case = (&'static str, String, &'static str);

/// Keys of four issuers: one with all algorithms, one that uses the same key id, two stock identity providers.
struct World {
    ed: Ed25519KeyPair,
    other: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    ec_asn1: EcdsaKeyPair,
    ec_public_point: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = || {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
        };
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = |format| EcdsaKeyPair::from_pkcs8(format, pkcs8.as_ref(), &random).unwrap();
        let fixed = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self {
            ed: ed(),
            other: ed(),
            ec_public_point: fixed.public_key().as_ref().to_vec(),
            ec: fixed,
            ec_asn1: ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
        }
    }

    fn verifier(&self) -> Verifier {
        let key = |id: Option<&str>, key| IssuerKey { id: id.map(str::to_owned), key };
        let ed = VerifyingKey::ed25519(self.ed.public_key().as_ref().try_into().unwrap());
        let other = VerifyingKey::ed25519(self.other.public_key().as_ref().try_into().unwrap());
        let keys = vec![
            key(Some("1"), ed.clone()),
            key(Some("ec"), self.ec_key()),
            key(Some("rsa"), VerifyingKey::from_pem(Algorithm::Rs256, RSA_PEM).unwrap()),
            key(Some("hs"), VerifyingKey::hmac(SECRET).unwrap()),
        ];
        let mapping = |tenant| ClaimMapping {
            tenant,
            user: ClaimPath::top("sub"),
            token_id: ClaimPath::top("jti"),
            device: Some(ClaimPath::top("device_id")),
            name: Some(ClaimPath::new(vec!["profile".into(), "https://idp.example/name".into()]).unwrap()),
            kind: ActorKind::User,
            grants: vec![Grant { on: GrantPattern::new("c:support-*").unwrap(), can: abilities(&[Ability::Read]) }],
        };
        let fixed = mapping(TenantSource::Fixed(TenantId::new("idp").unwrap()));
        let claimed = mapping(TenantSource::Claim(ClaimPath::new(vec!["org".into(), "id".into()]).unwrap()));
        let issuers = [
            ("https://issuer.example", &["acme", "beta"][..], keys, None),
            ("https://other.example", &["other"], vec![key(Some("1"), other)], None),
            ("https://fixed.example", &["idp"], vec![key(None, ed.clone())], Some(fixed)),
            ("https://claimed.example", &["north", "south"], vec![key(None, ed)], Some(claimed)),
        ];
        let configs = issuers.map(|(issuer, tenants, keys, mapping)| IssuerConfig {
            policy: IssuerPolicy {
                issuer: issuer.to_owned(),
                audiences: vec!["antiphon".to_owned(), "chat".to_owned()],
                tenants: tenants.iter().map(|tenant| TenantId::new(tenant).unwrap()).collect(),
                leeway_seconds: 30,
                mapping,
            },
            keys,
        });
        Verifier::new(configs.into()).unwrap()
    }

    /// ES256 keys come as PEM in production; the test builds the PEM around a fresh point.
    fn ec_key(&self) -> VerifyingKey {
        let mut info = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        info.extend_from_slice(&self.ec_public_point);
        let body = base64::engine::general_purpose::STANDARD.encode(info);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        VerifyingKey::from_pem(Algorithm::Es256, pem.as_bytes()).unwrap()
    }

    /// A token over these very texts, signed with the first issuer's Ed25519 key.
    fn signed(&self, header: &str, payload: &str) -> String {
        joined(header, payload, |message| self.ed.sign(message).as_ref().to_vec())
    }

    fn header(&self, edit: impl FnOnce(&mut Value)) -> String {
        self.signed(&edited(good_header(), edit), &good_payload().to_string())
    }

    fn payload(&self, edit: impl FnOnce(&mut Value)) -> String {
        self.signed(&good_header().to_string(), &edited(good_payload(), edit))
    }

    fn antiphon(&self, edit: impl FnOnce(&mut Value)) -> String {
        self.payload(|payload| edit(&mut payload["antiphon"]))
    }

    /// A token as a stock identity provider makes them: no key id, no `antiphon`.
    fn stock(&self, issuer: &str, edit: impl FnOnce(&mut Value)) -> String {
        let mut payload = good_payload();
        payload["iss"] = issuer.into();
        remove(&mut payload, "antiphon");
        self.signed(r#"{"alg":"EdDSA"}"#, &edited(payload, edit))
    }

    /// A good token but for algorithm, key id and signature.
    fn signed_by(&self, algorithm: &str, key_id: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let header = json!({ "alg": algorithm, "typ": "JWT", "kid": key_id }).to_string();
        joined(&header, &good_payload().to_string(), sign)
    }
}

fn abilities(members: &[Ability]) -> Abilities {
    members.iter().copied().collect()
}

fn good_header() -> Value {
    json!({ "alg": "EdDSA", "typ": "JWT", "kid": "1" })
}

fn good_payload() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "antiphon",
        "sub": "ann",
        "iat": NOW - 60,
        "exp": NOW + 3_600,
        "jti": "t1",
        "antiphon": { "v": 1, "tenant": "acme", "kind": "user" },
    })
}

fn edited(mut value: Value, edit: impl FnOnce(&mut Value)) -> String {
    edit(&mut value);
    value.to_string()
}

fn remove(value: &mut Value, member: &str) {
    value.as_object_mut().unwrap().remove(member).unwrap();
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn joined(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(payload));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encoded(signature))
}

fn hs256(secret: &[u8]) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

#[test]
fn every_hostile_token_is_refused_for_its_own_reason() {
    let world = World::new();
    let verifier = world.verifier();
    let cases = cases::all(&world);
    let names: BTreeSet<_> = cases.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), cases.len(), "names are distinct");
    assert!(cases.len() >= 80, "{} cases", cases.len());
    for (name, token, expected) in &cases {
        match verifier.verify(token, NOW_MS) {
            Ok(claims) => panic!("{name}: accepted as {claims:?}"),
            Err(error) => {
                assert_eq!(error.code(), *expected, "{name}: {error}");
                let printed = format!("{error} {error:?}");
                let secret = token.split('.').any(|part| part.len() > 8 && printed.contains(part));
                assert!(!secret, "{name}: the error shows the token");
            }
        }
    }
}

#[test]
fn every_reason_has_a_token() {
    let reasons: BTreeSet<_> = cases::all(&World::new()).into_iter().map(|(.., code)| code).collect();
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), cases::REASONS);
}

#[test]
fn no_changed_character_is_forgiven() {
    let world = World::new();
    let verifier = world.verifier();
    let token = world.payload(|_| {});
    verifier.verify(&token, NOW_MS).unwrap();
    for at in 0..token.len() {
        for replacement in ["A", "B", "Q", "-", ".", "=", " ", "\u{0}"] {
            let mut changed = token.clone();
            changed.replace_range(at..=at, replacement);
            assert!(changed == token || verifier.verify(&changed, NOW_MS).is_err(), "byte {at} -> {replacement:?}");
        }
        assert!(verifier.verify(&token[..at], NOW_MS).is_err(), "cut at {at}");
        let inserted = format!("{}A{}", &token[..at], &token[at..]);
        assert!(verifier.verify(&inserted, NOW_MS).is_err(), "inserted at {at}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused_without_a_panic(token in "([A-Za-z0-9_=-]{0,60}\\.?){0,5}|\\PC{0,80}") {
        let verifier = Verifier::new(Vec::new()).unwrap();
        prop_assert!(verifier.verify(&token, NOW_MS).is_err());
    }

    #[test]
    fn arbitrary_parts_are_refused_without_a_panic(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>()) {
        let world = World::new();
        let signed = |header: &[u8], payload: &[u8]| {
            let message = format!("{}.{}", encoded(header), encoded(payload));
            format!("{message}.{}", encoded(world.ed.sign(message.as_bytes())))
        };
        let (good_header, good_payload) = (good_header().to_string(), good_payload().to_string());
        let verifier = world.verifier();
        prop_assert!(verifier.verify(&signed(&header, good_payload.as_bytes()), NOW_MS).is_err());
        prop_assert!(verifier.verify(&signed(good_header.as_bytes(), &payload), NOW_MS).is_err());
    }

    #[test]
    fn arbitrary_key_files_are_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
        let pem = |bytes: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
        };
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            prop_assert!(VerifyingKey::from_pem(algorithm, &bytes).is_err());
            prop_assert!(VerifyingKey::from_pem(algorithm, pem(&bytes).as_bytes()).is_err());
        }
    }
}

fn accepted(name: &str, verifier: &Verifier, token: &str) -> Claims {
    verifier.verify(token, NOW_MS).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn all_four_algorithms_are_accepted_with_their_own_keys() {
    let world = World::new();
    let verifier = world.verifier();
    let random = SystemRandom::new();
    let tokens = [
        ("EdDSA", world.signed_by("EdDSA", "1", |message| world.ed.sign(message).as_ref().to_vec())),
        ("ES256", world.signed_by("ES256", "ec", |message| world.ec.sign(&random, message).unwrap().as_ref().to_vec())),
        ("HS256", world.signed_by("HS256", "hs", hs256(SECRET))),
        ("RS256", RS256.trim().to_owned()),
    ];
    for (name, token) in tokens {
        let claims = accepted(name, &verifier, &token);
        assert_eq!((claims.tenant.as_str(), claims.user.as_str(), claims.token_id.as_str()), ("acme", "ann", "t1"));
        assert_eq!((claims.kind, claims.device, claims.name, claims.grants), (ActorKind::User, None, None, vec![]));
        assert!(claims.scopes.is_empty());
    }
}

#[test]
fn what_the_standard_leaves_open_is_accepted() {
    let world = World::new();
    let verifier = world.verifier();
    let tokens = [
        ("typ at+jwt", world.header(|header| header["typ"] = "at+jwt".into())),
        ("typ jwt in small letters", world.header(|header| header["typ"] = "jwt".into())),
        ("no typ", world.header(|header| remove(header, "typ"))),
        ("unknown header member", world.header(|header| header["nonce"] = "x".into())),
        ("aud list", world.payload(|payload| payload["aud"] = json!(["elsewhere", "antiphon"]))),
        ("second audience", world.payload(|payload| payload["aud"] = "chat".into())),
        ("unknown claim", world.payload(|payload| payload["email"] = json!({ "verified": [true, null, 1.5] }))),
        ("second tenant", world.antiphon(|antiphon| antiphon["tenant"] = "beta".into())),
        ("empty limits", world.antiphon(|antiphon| antiphon["limits"] = json!({}))),
        ("nbf now", world.payload(|payload| payload["nbf"] = NOW.into())),
    ];
    for (name, token) in tokens {
        accepted(name, &verifier, &token);
    }
}

#[test]
fn dates_hold_to_the_last_millisecond_of_the_leeway() {
    let world = World::new();
    let verifier = world.verifier();
    let token = world.payload(|_| {});
    let expiry_ms = (NOW + 3_600) * 1_000;
    assert_eq!(verifier.verify(&token, expiry_ms + 29_999).unwrap().expires_at_ms, expiry_ms);
    assert_eq!(verifier.verify(&token, expiry_ms + 30_000), Err(TokenError::Expired));
    let issued_ms = (NOW - 60) * 1_000;
    assert!(verifier.verify(&token, issued_ms - 30_000).is_ok());
    assert_eq!(verifier.verify(&token, issued_ms - 30_001), Err(TokenError::IssuedInFuture));
    let not_before = world.payload(|payload| payload["nbf"] = NOW.into());
    assert!(verifier.verify(&not_before, NOW_MS - 30_000).is_ok());
    assert_eq!(verifier.verify(&not_before, NOW_MS - 30_001), Err(TokenError::NotYetValid));
    assert_eq!(verifier.verify(&token, u64::MAX), Err(TokenError::Expired));
    assert_eq!(verifier.verify(&token, 0), Err(TokenError::IssuedInFuture));
}

#[test]
fn users_get_a_day_and_services_more() {
    let world = World::new();
    let verifier = world.verifier();
    let lasting = |kind: &'static str, seconds: u64| {
        world.payload(move |payload| {
            payload["exp"] = (NOW - 60 + seconds).into();
            payload["antiphon"]["kind"] = kind.into();
        })
    };
    accepted("a day", &verifier, &lasting("user", DAY));
    assert_eq!(verifier.verify(&lasting("user", DAY + 1), NOW_MS), Err(TokenError::LifetimeTooLong));
    for kind in ["service", "worker", "edge"] {
        accepted(kind, &verifier, &lasting(kind, 365 * DAY));
    }
}

#[test]
fn stock_tokens_get_their_rights_from_the_configuration() {
    let world = World::new();
    let verifier = world.verifier();
    let token = world.stock("https://fixed.example", |payload| {
        payload["sub"] = "auth0|5f7c8ec7".into();
        payload["profile"] = json!({ "https://idp.example/name": "Ann" });
        payload["device_id"] = "phone".into();
        payload["org"] = json!({ "id": "acme" });
    });
    let claims = accepted("fixed tenant", &verifier, &token);
    assert_eq!((claims.tenant.as_str(), claims.user.as_str()), ("idp", "auth0|5f7c8ec7"));
    assert_eq!(claims.name.as_deref(), Some("Ann"));
    assert_eq!(claims.device.as_ref().map(|device| device.as_str()), Some("phone"));
    assert!(claims.granted("c:support-1", Ability::Read) && !claims.granted("c:support-1", Ability::Send));
    assert!(claims.scopes.is_empty());

    let token = world.stock("https://claimed.example", |payload| payload["org"] = json!({ "id": "south" }));
    assert_eq!(accepted("claimed tenant", &verifier, &token).tenant.as_str(), "south");
}

#[test]
fn contradictory_issuers_make_no_verifier() {
    let minter = super::minter::tests::minter();
    let good = || minter.issuer(vec![TenantId::new("acme").unwrap()]);
    let broken = |edit: fn(&mut IssuerConfig)| {
        let mut config = good();
        edit(&mut config);
        Verifier::new(vec![config]).unwrap_err().to_string()
    };
    let errors = [
        ("leeway", broken(|config| config.policy.leeway_seconds = 31)),
        ("audience", broken(|config| config.policy.audiences.clear())),
        ("audience", broken(|config| config.policy.audiences.push(String::new()))),
        ("tenant", broken(|config| config.policy.tenants.clear())),
        ("key", broken(|config| config.keys.clear())),
        ("same id", broken(|config| config.keys.push(config.keys[0].clone()))),
        ("name", broken(|config| config.policy.issuer.clear())),
        ("once", Verifier::new(vec![good(), good()]).unwrap_err().to_string()),
    ];
    for (expected, error) in errors {
        assert!(error.contains(expected), "{error}");
    }
    assert!(Verifier::new(vec![good()]).is_ok());
}
