//! The table of hostile tokens.

use super::*;

/// Every code a token can be refused with, sorted.
pub(super) const REASONS: [&str; 33] = [
    "algorithm_mismatch",
    "algorithm_unsupported",
    "antiphon_unexpected",
    "audience",
    "claim_id",
    "claim_id_reserved",
    "claim_missing",
    "claim_text",
    "claim_type",
    "claim_unknown",
    "duplicate_key",
    "expired",
    "grant_invalid",
    "header_forbidden",
    "issued_in_future",
    "issuer_unknown",
    "key_id",
    "key_unknown",
    "kind_unknown",
    "lifetime_empty",
    "lifetime_too_long",
    "limits_unsupported",
    "not_yet_valid",
    "scope_not_allowed",
    "scope_unknown",
    "signature",
    "tenant_not_allowed",
    "token_encoding",
    "token_json",
    "token_shape",
    "token_too_large",
    "token_type",
    "version_unsupported",
];

pub(super) fn all(world: &World) -> Vec<Case> {
    let groups = [
        shape(world),
        encoding(world),
        json_text(world),
        header_members(world),
        algorithms(world),
        key_ids(world),
        confusion(world),
        signatures(world),
        issuers(world),
        audiences(world),
        dates(world),
        subjects(world),
        antiphon_claims(world),
        names_and_devices(world),
        grants(world),
        scopes_and_limits(world),
        stock_tokens(world),
    ];
    groups.into_iter().flatten().collect()
}

fn shape(world: &World) -> Vec<Case> {
    let good = world.payload(|_| {});
    let parts: Vec<&str> = good.split('.').collect();
    vec![
        ("nothing", String::new(), "token_shape"),
        ("one part", parts[0].to_owned(), "token_shape"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "token_shape"),
        ("four parts", format!("{good}.{}", parts[2]), "token_shape"),
        ("five parts as of an encrypted token", format!("{good}.a.b"), "token_shape"),
        ("a longer one hiding in front", format!("{}.{good}", parts[0]), "token_shape"),
        ("one byte too long", "a".repeat(8 * 1024 + 1), "token_too_large"),
        (
            "well signed but too long",
            world.payload(|payload| payload["pad"] = "x".repeat(8_000).into()),
            "token_too_large",
        ),
        ("only dots", "..".to_owned(), "token_json"),
        ("three empty objects", format!("{0}.{0}.{0}", encoded("{}")), "algorithm_unsupported"),
    ]
}

fn encoding(world: &World) -> Vec<Case> {
    let good = world.payload(|_| {});
    let parts: Vec<&str> = good.split('.').collect();
    let standard = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let header = r#"{"alg":"EdDSA","kid":"1","x":"???>>>"}"#;
    vec![
        ("header is not base64url", format!("!!!.{}.{}", parts[1], parts[2]), "token_encoding"),
        ("header in standard base64", format!("{}.{}.{}", standard(header), parts[1], parts[2]), "token_encoding"),
        ("header with padding", format!("{}==.{}.{}", parts[0], parts[1], parts[2]), "token_encoding"),
        ("payload is not base64url", format!("{}.%7B%7D.{}", parts[0], parts[2]), "token_encoding"),
        ("payload with a line end", format!("{}.{}\n.{}", parts[0], parts[1], parts[2]), "token_encoding"),
        ("signature is not base64url", format!("{}.{}.~", parts[0], parts[1]), "token_encoding"),
        ("signature with padding", format!("{good}=="), "token_encoding"),
        ("space in front", format!(" {good}"), "token_encoding"),
        ("line end behind", format!("{good}\n"), "token_encoding"),
        ("bearer word left in", format!("Bearer {good}"), "token_encoding"),
        ("NUL behind", format!("{good}\0"), "token_encoding"),
    ]
}

fn json_text(world: &World) -> Vec<Case> {
    let header = good_header().to_string();
    let payload = good_payload().to_string();
    let tail = &payload[1..];
    let nested = format!(r#"{{"deep":{}{},{tail}"#, "[".repeat(40), "]".repeat(40));
    let in_payload = |text: String| world.signed(&header, &text);
    vec![
        ("header is text", world.signed("hello", &payload), "token_json"),
        ("header is a list", world.signed("[]", &payload), "token_json"),
        ("header is null", world.signed("null", &payload), "token_json"),
        ("header with a byte order mark", world.signed(&format!("\u{feff}{header}"), &payload), "token_json"),
        ("header has a tail", world.signed(&format!("{header}{{}}"), &payload), "token_json"),
        ("payload is a string", in_payload("\"ann\"".to_owned()), "token_json"),
        ("payload has a tail", in_payload(format!("{payload} x")), "token_json"),
        ("payload is cut", in_payload(payload[..payload.len() - 1].to_owned()), "token_json"),
        ("payload is too deep", in_payload(nested), "token_json"),
        ("payload with a comment", in_payload(format!("/**/{payload}")), "token_json"),
        ("alg twice", world.signed(&format!(r#"{{"alg":"none",{}"#, &header[1..]), &payload), "duplicate_key"),
        ("kid twice", world.signed(&format!(r#"{{"kid":"ec",{}"#, &header[1..]), &payload), "duplicate_key"),
        ("iss twice", in_payload(format!(r#"{{"iss":"https://other.example",{tail}"#)), "duplicate_key"),
        ("exp twice", in_payload(format!(r#"{{"exp":9999999999,{tail}"#)), "duplicate_key"),
        ("sub twice, once escaped", in_payload(format!(r#"{{"\u0073ub":"root",{tail}"#)), "duplicate_key"),
        (
            "tenant twice",
            in_payload(payload.replace(r#""tenant":"acme""#, r#""tenant":"other","tenant":"acme""#)),
            "duplicate_key",
        ),
    ]
}

fn header_members(world: &World) -> Vec<Case> {
    let attacker = World::new();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(attacker.ed.public_key()) });
    let own_key = attacker.header(|header| header["jwk"] = jwk.clone());
    let with = |member: &'static str, value: Value| world.header(move |header| header[member] = value);
    let typed = |value: Value| world.header(move |header| header["typ"] = value);
    vec![
        ("brings its own key and signs with it", own_key, "header_forbidden"),
        ("a harmless-looking own key", with("jwk", Value::Null), "header_forbidden"),
        ("key set address", with("jku", "https://evil.example/jwks".into()), "header_forbidden"),
        ("key set address inside", with("jku", "http://169.254.169.254/".into()), "header_forbidden"),
        ("certificate address", with("x5u", "https://evil.example/x".into()), "header_forbidden"),
        ("certificate chain", with("x5c", json!(["MIIB"])), "header_forbidden"),
        ("certificate hash", with("x5t", "AAAA".into()), "header_forbidden"),
        ("certificate hash 256", with("x5t#S256", "AAAA".into()), "header_forbidden"),
        ("critical extension", with("crit", json!(["exp"])), "header_forbidden"),
        ("empty critical list", with("crit", json!([])), "header_forbidden"),
        ("unencoded payload", with("b64", false.into()), "header_forbidden"),
        ("compressed", with("zip", "DEF".into()), "header_forbidden"),
        ("encrypted", with("enc", "A128GCM".into()), "header_forbidden"),
        ("nested token", with("cty", "JWT".into()), "header_forbidden"),
        ("typ of a logout token", typed("logout+jwt".into()), "token_type"),
        ("typ of a proof", typed("dpop+jwt".into()), "token_type"),
        ("typ JWE", typed("JWE".into()), "token_type"),
        ("typ empty", typed("".into()), "token_type"),
        ("typ a number", typed(1.into()), "token_type"),
        ("typ null", typed(Value::Null), "token_type"),
    ]
}

fn algorithms(world: &World) -> Vec<Case> {
    let with = |value: Value| world.header(move |header| header["alg"] = value);
    let unsigned = |name: &str| {
        let header = json!({ "alg": name, "typ": "JWT", "kid": "1" }).to_string();
        joined(&header, &good_payload().to_string(), |_| Vec::new())
    };
    let code = "algorithm_unsupported";
    vec![
        ("alg none without signature", unsigned("none"), code),
        ("alg None without signature", unsigned("None"), code),
        ("alg NONE without signature", unsigned("NONE"), code),
        ("alg nOnE without signature", unsigned("nOnE"), code),
        ("alg none with a signature", with("none".into()), code),
        ("alg absent", world.header(|header| remove(header, "alg")), code),
        ("alg null", with(Value::Null), code),
        ("alg a number", with(0.into()), code),
        ("alg a list", with(json!(["EdDSA"])), code),
        ("alg in small letters", with("eddsa".into()), code),
        ("alg with a space", with("EdDSA ".into()), code),
        ("alg empty", with("".into()), code),
        ("alg HS512", with("HS512".into()), code),
        ("alg ES384", with("ES384".into()), code),
        ("alg PS256", with("PS256".into()), code),
        ("alg of key wrapping", with("RSA-OAEP".into()), code),
    ]
}

fn key_ids(world: &World) -> Vec<Case> {
    let with = |value: Value| world.header(move |header| header["kid"] = value);
    vec![
        ("kid a number", with(1.into()), "key_id"),
        ("kid null", with(Value::Null), "key_id"),
        ("kid a list", with(json!(["1"])), "key_id"),
        ("kid absent", world.header(|header| remove(header, "kid")), "key_unknown"),
        ("kid empty", with("".into()), "key_unknown"),
        ("kid unknown", with("2".into()), "key_unknown"),
        ("kid as a file path", with("../../../../dev/null".into()), "key_unknown"),
        ("kid as a query", with("1' OR '1'='1".into()), "key_unknown"),
        ("kid with a NUL", with("1\0".into()), "key_unknown"),
        ("kid very long", with("1".repeat(4_000).into()), "key_unknown"),
    ]
}

/// The header names an algorithm, the key is for another one.
fn confusion(world: &World) -> Vec<Case> {
    let code = "algorithm_mismatch";
    let ed_public = world.ed.public_key().as_ref();
    let ed = |message: &[u8]| world.ed.sign(message).as_ref().to_vec();
    vec![
        ("HS256 with the Ed25519 public key as secret", world.signed_by("HS256", "1", hs256(ed_public)), code),
        (
            "HS256 with the P-256 public key as secret",
            world.signed_by("HS256", "ec", hs256(&world.ec_public_point)),
            code,
        ),
        ("HS256 with the RSA public key's PEM as secret", world.signed_by("HS256", "rsa", hs256(RSA_PEM)), code),
        ("HS256 with an empty secret for a public key", world.signed_by("HS256", "rsa", hs256(b"")), code),
        ("EdDSA for an RSA key", world.signed_by("EdDSA", "rsa", ed), code),
        ("EdDSA for a secret", world.signed_by("EdDSA", "hs", ed), code),
        ("ES256 for an Ed25519 key", world.signed_by("ES256", "1", ed), code),
        ("RS256 for a P-256 key", world.signed_by("RS256", "ec", ed), code),
        ("RS256 for a secret", world.signed_by("RS256", "hs", hs256(SECRET)), code),
    ]
}

fn signatures(world: &World) -> Vec<Case> {
    let random = SystemRandom::new();
    let code = "signature";
    let ed = |message: &[u8]| world.ed.sign(message).as_ref().to_vec();
    let asn1 = |message: &[u8]| world.ec_asn1.sign(&random, message).unwrap().as_ref().to_vec();
    let flipped = |message: &[u8]| {
        let mut signature = world.ed.sign(message).as_ref().to_vec();
        signature[7] ^= 0x10;
        signature
    };
    let swapped = |from: String, to: String| {
        let (message, _) = to.rsplit_once('.').unwrap();
        let (_, signature) = from.rsplit_once('.').unwrap();
        format!("{message}.{signature}")
    };
    let promoted = world.antiphon(|antiphon| antiphon["scopes"] = json!(["admin:write"]));
    let shifted = {
        let parts: Vec<&str> = RS256.trim().split('.').collect();
        let payload = [b" ".to_vec(), URL_SAFE_NO_PAD.decode(parts[1]).unwrap()].concat();
        format!("{}.{}.{}", parts[0], encoded(payload), parts[2])
    };
    let other_key = |message: &[u8]| world.other.sign(message).as_ref().to_vec();
    let of_other = world.payload(|payload| payload["iss"] = "https://other.example".into());
    vec![
        ("one bit flipped", world.signed_by("EdDSA", "1", flipped), code),
        ("signature empty", world.signed_by("EdDSA", "1", |_| Vec::new()), code),
        ("signature all zeros", world.signed_by("EdDSA", "1", |_| vec![0; 64]), code),
        ("signature one byte short", world.signed_by("EdDSA", "1", |message| ed(message)[..63].to_vec()), code),
        ("signature one byte long", world.signed_by("EdDSA", "1", |message| [ed(message), vec![0]].concat()), code),
        ("signature of another payload", swapped(world.payload(|_| {}), promoted), code),
        (
            "signature of another header",
            swapped(world.payload(|_| {}), world.header(|header| header["a"] = 1.into())),
            code,
        ),
        ("ES256 with r and s zero", world.signed_by("ES256", "ec", |_| vec![0; 64]), code),
        ("ES256 in the other encoding", world.signed_by("ES256", "ec", asn1), code),
        ("ES256 empty", world.signed_by("ES256", "ec", |_| Vec::new()), code),
        ("HS256 with a guessed secret", world.signed_by("HS256", "hs", hs256(b"secret")), code),
        ("HS256 with an empty secret", world.signed_by("HS256", "hs", hs256(b"")), code),
        ("HS256 cut to one byte", world.signed_by("HS256", "hs", |message| hs256(SECRET)(message)[..1].to_vec()), code),
        ("HS256 empty", world.signed_by("HS256", "hs", |_| Vec::new()), code),
        ("RS256 with PSS padding", RS256_PSS.trim().to_owned(), code),
        ("RS256 with 256 zeros", world.signed_by("RS256", "rsa", |_| vec![0; 256]), code),
        ("RS256 with a space before the payload", shifted, code),
        ("another issuer's key of the same id", world.signed_by("EdDSA", "1", other_key), code),
        ("another issuer's name over our signature", of_other, code),
    ]
}

fn issuers(world: &World) -> Vec<Case> {
    let with = |value: Value| world.payload(move |payload| payload["iss"] = value);
    vec![
        ("iss absent", world.payload(|payload| remove(payload, "iss")), "claim_missing"),
        ("iss null", with(Value::Null), "claim_type"),
        ("iss a number", with(1.into()), "claim_type"),
        ("iss a list", with(json!(["https://issuer.example"])), "claim_type"),
        ("iss unknown", with("https://evil.example".into()), "issuer_unknown"),
        ("iss with a slash more", with("https://issuer.example/".into()), "issuer_unknown"),
        ("iss in capitals", with("HTTPS://ISSUER.EXAMPLE".into()), "issuer_unknown"),
        ("iss of the metadata service", with("http://169.254.169.254/latest".into()), "issuer_unknown"),
        ("iss empty", with("".into()), "issuer_unknown"),
    ]
}

fn audiences(world: &World) -> Vec<Case> {
    let with = |value: Value| world.payload(move |payload| payload["aud"] = value);
    vec![
        ("aud absent", world.payload(|payload| remove(payload, "aud")), "claim_missing"),
        ("aud null", with(Value::Null), "claim_type"),
        ("aud an object", with(json!({ "antiphon": true })), "claim_type"),
        ("aud a mixed list", with(json!(["antiphon", 1])), "claim_type"),
        ("aud another", with("payments".into()), "audience"),
        ("aud in capitals", with("Antiphon".into()), "audience"),
        ("aud a prefix", with("antiphon.evil".into()), "audience"),
        ("aud an empty list", with(json!([])), "audience"),
        ("aud a list of others", with(json!(["payments", "mail"])), "audience"),
    ]
}

fn dates(world: &World) -> Vec<Case> {
    let with = |claim: &'static str, value: Value| world.payload(move |payload| payload[claim] = value);
    let without = |claim: &'static str| world.payload(move |payload| remove(payload, claim));
    vec![
        ("exp absent", without("exp"), "claim_missing"),
        ("exp a string", with("exp", "9999999999".into()), "claim_type"),
        ("exp null", with("exp", Value::Null), "claim_type"),
        ("exp true", with("exp", true.into()), "claim_type"),
        ("exp a list", with("exp", json!([NOW + 60])), "claim_type"),
        ("exp with a fraction", with("exp", json!(1_800_003_600.5)), "claim_type"),
        ("exp negative", with("exp", json!(-1)), "claim_type"),
        ("exp beyond 2^53", with("exp", json!(1_u64 << 53)), "claim_type"),
        ("exp the largest integer", with("exp", json!(u64::MAX)), "claim_type"),
        ("exp a huge float", with("exp", json!(1e300)), "claim_type"),
        ("expired a minute ago", with("exp", (NOW - 31).into()), "expired"),
        ("expired just past the leeway", with("exp", (NOW - 30).into()), "expired"),
        ("exp zero", with("exp", 0.into()), "lifetime_empty"),
        ("exp before iat", with("exp", (NOW - 61).into()), "lifetime_empty"),
        ("exp equals iat", with("exp", (NOW - 60).into()), "lifetime_empty"),
        ("a user's token for a year", with("exp", (NOW + 365 * DAY).into()), "lifetime_too_long"),
        ("iat long ago", with("iat", 0.into()), "lifetime_too_long"),
        ("iat absent", without("iat"), "claim_missing"),
        ("iat a string", with("iat", "1799999940".into()), "claim_type"),
        ("iat null", with("iat", Value::Null), "claim_type"),
        ("iat in the future", with("iat", (NOW + 31).into()), "issued_in_future"),
        ("nbf a string", with("nbf", "0".into()), "claim_type"),
        ("nbf null", with("nbf", Value::Null), "claim_type"),
        ("nbf in the future", with("nbf", (NOW + 31).into()), "not_yet_valid"),
    ]
}

fn subjects(world: &World) -> Vec<Case> {
    let with = |claim: &'static str, value: Value| world.payload(move |payload| payload[claim] = value);
    let without = |claim: &'static str| world.payload(move |payload| remove(payload, claim));
    vec![
        ("sub absent", without("sub"), "claim_missing"),
        ("sub null", with("sub", Value::Null), "claim_type"),
        ("sub a number", with("sub", 7.into()), "claim_type"),
        ("sub an object", with("sub", json!({ "id": "ann" })), "claim_type"),
        ("sub empty", with("sub", "".into()), "claim_id"),
        ("sub too long", with("sub", "a".repeat(65).into()), "claim_id"),
        ("sub with a slash", with("sub", "ann/../bob".into()), "claim_id"),
        ("sub with a star", with("sub", "*".into()), "claim_id"),
        ("sub with a NUL", with("sub", "ann\0".into()), "claim_id"),
        ("sub with a line end", with("sub", "ann\n".into()), "claim_id"),
        ("sub in other letters", with("sub", "\u{430}nn".into()), "claim_id"),
        ("sub of the broker", with("sub", "~system".into()), "claim_id_reserved"),
        ("jti absent", without("jti"), "claim_missing"),
        ("jti a number", with("jti", 7.into()), "claim_type"),
        ("jti empty", with("jti", "".into()), "claim_text"),
        ("jti too long", with("jti", "a".repeat(129).into()), "claim_text"),
        ("jti forging a log line", with("jti", "x\r\nINFO granted".into()), "claim_text"),
    ]
}

fn antiphon_claims(world: &World) -> Vec<Case> {
    let with = |member: &'static str, value: Value| world.antiphon(move |antiphon| antiphon[member] = value);
    let without = |member: &'static str| world.antiphon(move |antiphon| remove(antiphon, member));
    vec![
        ("antiphon absent", world.payload(|payload| remove(payload, "antiphon")), "claim_missing"),
        ("antiphon a string", world.payload(|payload| payload["antiphon"] = "v1".into()), "claim_type"),
        ("antiphon null", world.payload(|payload| payload["antiphon"] = Value::Null), "claim_type"),
        ("v absent", without("v"), "claim_missing"),
        ("v of the future", with("v", 2.into()), "version_unsupported"),
        ("v zero", with("v", 0.into()), "version_unsupported"),
        ("v a string", with("v", "1".into()), "version_unsupported"),
        ("v a float", with("v", json!(1.0)), "version_unsupported"),
        ("an unknown member", with("superuser", true.into()), "claim_unknown"),
        ("a member in other letters", with("Tenant", "acme".into()), "claim_unknown"),
        ("tenant absent", without("tenant"), "claim_missing"),
        ("tenant null", with("tenant", Value::Null), "claim_type"),
        ("tenant a list", with("tenant", json!(["acme"])), "claim_type"),
        ("tenant empty", with("tenant", "".into()), "claim_id"),
        ("tenant a pattern", with("tenant", "*".into()), "claim_id"),
        ("tenant of the broker", with("tenant", "~".into()), "claim_id_reserved"),
        ("another issuer's tenant", with("tenant", "other".into()), "tenant_not_allowed"),
        ("tenant in capitals", with("tenant", "ACME".into()), "tenant_not_allowed"),
        ("kind absent", without("kind"), "claim_missing"),
        ("kind a number", with("kind", 1.into()), "claim_type"),
        ("kind unknown", with("kind", "admin".into()), "kind_unknown"),
        ("kind in capitals", with("kind", "Service".into()), "kind_unknown"),
    ]
}

fn names_and_devices(world: &World) -> Vec<Case> {
    let with = |member: &'static str, value: Value| world.antiphon(move |antiphon| antiphon[member] = value);
    vec![
        ("device null", with("device", Value::Null), "claim_type"),
        ("device a number", with("device", 1.into()), "claim_type"),
        ("device empty", with("device", "".into()), "claim_id"),
        ("device of the broker", with("device", "~d".into()), "claim_id_reserved"),
        ("name a number", with("name", 1.into()), "claim_type"),
        ("name empty", with("name", "".into()), "claim_text"),
        ("name too long", with("name", "a".repeat(257).into()), "claim_text"),
        ("name with an escape sequence", with("name", "\u{1b}[2J".into()), "claim_text"),
    ]
}

fn grants(world: &World) -> Vec<Case> {
    let with = |value: Value| world.antiphon(move |antiphon| antiphon["grants"] = value);
    let one = |on: &str, can: Value| with(json!([{ "on": on, "can": can }]));
    let many: Vec<Value> = (0..65).map(|_| json!({ "on": "c:a", "can": [] })).collect();
    let code = "grant_invalid";
    vec![
        ("grants null", with(Value::Null), "claim_type"),
        ("grants an object", with(json!({ "on": "c:a", "can": ["read"] })), "claim_type"),
        ("too many grants", with(many.into()), code),
        ("a grant that is no object", with(json!(["c:*"])), code),
        ("a grant without on", with(json!([{ "can": ["read"] }])), code),
        ("a grant without can", with(json!([{ "on": "c:a" }])), code),
        ("a grant with more", with(json!([{ "on": "c:a", "can": ["read"], "except": [] }])), code),
        ("a grant on everything", one("*", json!(["read"])), code),
        ("a grant on another kind", one("x:a", json!(["read"])), code),
        ("a grant with a star inside", one("c:a*b", json!(["read"])), code),
        ("a grant on an empty name", one("c:", json!(["read"])), code),
        ("a grant of everything", one("c:a", json!(["*"])), code),
        ("a grant of an unknown ability", one("c:a", json!(["read", "own"])), code),
        ("a grant of a word", one("c:a", "read".into()), code),
        ("a grant of a number", one("c:a", json!([63])), code),
    ]
}

fn scopes_and_limits(world: &World) -> Vec<Case> {
    let with = |member: &'static str, value: Value| world.antiphon(move |antiphon| antiphon[member] = value);
    vec![
        ("scopes a string", with("scopes", "admin:write".into()), "claim_type"),
        ("scope unknown", with("scopes", json!(["admin:*"])), "scope_unknown"),
        ("scope in capitals", with("scopes", json!(["ADMIN:WRITE"])), "scope_unknown"),
        ("scope a number", with("scopes", json!([1])), "scope_unknown"),
        ("a user acting for others", with("scopes", json!(["act_as"])), "scope_not_allowed"),
        ("limits that nobody enforces", with("limits", json!({ "sends_per_second": 1 })), "limits_unsupported"),
        ("limits a list", with("limits", json!([])), "claim_type"),
        ("limits null", with("limits", Value::Null), "claim_type"),
    ]
}

fn stock_tokens(world: &World) -> Vec<Case> {
    let fixed = |edit: fn(&mut Value)| world.stock("https://fixed.example", edit);
    let claimed = |edit: fn(&mut Value)| world.stock("https://claimed.example", edit);
    let keyed = world.payload(|payload| payload["iss"] = "https://fixed.example".into());
    vec![
        ("a stock token with rights of its own", fixed(|it| it["antiphon"] = json!({ "v": 1 })), "antiphon_unexpected"),
        ("a stock token with a key id", keyed, "key_unknown"),
        ("a stock token without sub", fixed(|it| remove(it, "sub")), "claim_missing"),
        ("a stock token without jti", fixed(|it| remove(it, "jti")), "claim_missing"),
        ("a stock token with a bad device", fixed(|it| it["device_id"] = "a b".into()), "claim_id"),
        (
            "a stock token with a bad name",
            fixed(|it| it["profile"] = json!({ "https://idp.example/name": 1 })),
            "claim_type",
        ),
        ("a stock token for a week", fixed(|it| it["exp"] = (NOW + 7 * DAY).into()), "lifetime_too_long"),
        ("a stock token without a tenant", claimed(|_| {}), "claim_missing"),
        ("a stock token with a flat tenant", claimed(|it| it["org"] = "north".into()), "claim_missing"),
        ("a stock token of another's tenant", claimed(|it| it["org"] = json!({ "id": "acme" })), "tenant_not_allowed"),
        ("a stock token with a list of tenants", claimed(|it| it["org"] = json!({ "id": ["north"] })), "claim_type"),
    ]
}
