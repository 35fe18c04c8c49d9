/** Access tokens (SPEC section 10): JWTs that a back end signs for its users. */

import { createHmac, createPrivateKey, type KeyObject, randomUUID, sign } from "node:crypto";

/** How tokens are signed: the algorithm is that of the issuer's key in the broker's configuration. */
export type SigningKey =
  /** An Ed25519 key: PEM (PKCS #8) or a KeyObject. */
  | { readonly algorithm: "EdDSA"; readonly key: string | KeyObject; readonly id?: string }
  /** A secret of 32 bytes or more. */
  | { readonly algorithm: "HS256"; readonly secret: string | Uint8Array; readonly id?: string };

export interface Grant {
  /** A log, or a prefix of logs followed by one `*`: `c:support-*`. */
  readonly on: string;
  readonly can: readonly ("read" | "send" | "signal" | "stream" | "room" | "manage")[];
}

export interface Claims {
  readonly issuer: string;
  readonly user: string;
  readonly tenant: string;
  /** `antiphon` if absent. */
  readonly audience?: string;
  readonly kind?: "user" | "service" | "worker";
  readonly device?: string;
  /** Shown to people. */
  readonly name?: string;
  readonly grants?: readonly Grant[];
  readonly scopes?: readonly ("act_as" | "admin:read" | "admin:write")[];
  /** An hour if absent; at most 24 hours for a user. */
  readonly lifetimeSeconds?: number;
}

const DEFAULT_LIFETIME_SECONDS = 3_600;
const TOKEN_BYTES_MAX = 8_192;

/** Signs a token. Throws if it would be longer than the protocol allows. */
export function mintToken(signing: SigningKey, claims: Claims): string {
  const issuedAt = Math.floor(Date.now() / 1_000);
  const { device, name, grants, scopes, lifetimeSeconds = DEFAULT_LIFETIME_SECONDS } = claims;
  const header = { alg: signing.algorithm, typ: "JWT", ...(signing.id && { kid: signing.id }) };
  const payload = {
    iss: claims.issuer,
    aud: claims.audience ?? "antiphon",
    sub: claims.user,
    iat: issuedAt,
    exp: issuedAt + lifetimeSeconds,
    jti: randomUUID(),
    antiphon: {
      v: 1,
      tenant: claims.tenant,
      kind: claims.kind ?? "user",
      ...(device && { device }),
      ...(name && { name }),
      ...(grants && { grants }),
      ...(scopes && { scopes }),
    },
  };
  const signed = `${encode(header)}.${encode(payload)}`;
  const token = `${signed}.${signature(signing, signed)}`;
  if (token.length > TOKEN_BYTES_MAX) throw new RangeError(`the token has ${token.length} bytes, at most 8192 allowed`);
  return token;
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString("base64url");
}

function signature(signing: SigningKey, signed: string): string {
  if (signing.algorithm === "HS256") {
    if (Buffer.byteLength(signing.secret) < 32) throw new RangeError("a secret has 32 bytes or more");
    return createHmac("sha256", signing.secret).update(signed).digest("base64url");
  }
  const key = typeof signing.key === "string" ? createPrivateKey(signing.key) : signing.key;
  if (key.asymmetricKeyType !== "ed25519") throw new TypeError("EdDSA takes an Ed25519 key");
  return sign(null, Buffer.from(signed), key).toString("base64url");
}
