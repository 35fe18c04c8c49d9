/** Tokens as a broker reads them. */

import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync, verify } from "node:crypto";
import { test } from "node:test";
import { mintToken } from "../src/server/token.js";

const claims = { issuer: "https://login.test", user: "ann", tenant: "acme" } as const;

function parts(token: string) {
  const [header = "", payload = "", signature = ""] = token.split(".");
  const read = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString());
  return {
    header: read(header),
    payload: read(payload),
    signed: Buffer.from(`${header}.${payload}`),
    signature: Buffer.from(signature, "base64url"),
  };
}

test("an EdDSA token has the claims, and its signature holds", () => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const grants = [{ on: "c:support-*", can: ["read", "send"] }] as const;
  const token = mintToken(
    { algorithm: "EdDSA", key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(), id: "2026-11" },
    { ...claims, device: "phone", name: "Ann", grants, lifetimeSeconds: 60 },
  );
  const { header, payload, signed, signature } = parts(token);
  assert.deepEqual(header, { alg: "EdDSA", typ: "JWT", kid: "2026-11" });
  assert.deepEqual([payload.iss, payload.aud, payload.sub], ["https://login.test", "antiphon", "ann"]);
  assert.equal(payload.exp - payload.iat, 60);
  assert.match(payload.jti, /^[\da-f-]{36}$/);
  assert.deepEqual(payload.antiphon, { v: 1, tenant: "acme", kind: "user", device: "phone", name: "Ann", grants });
  assert.ok(verify(null, signed, publicKey, signature));
});

test("an HS256 token is signed with the secret", () => {
  const secret = "0123456789abcdef0123456789abcdef";
  const { header, payload, signed, signature } = parts(mintToken({ algorithm: "HS256", secret }, claims));
  assert.deepEqual(header, { alg: "HS256", typ: "JWT" });
  assert.deepEqual(payload.antiphon, { v: 1, tenant: "acme", kind: "user" });
  assert.deepEqual(signature, createHmac("sha256", secret).update(signed).digest());
});

test("keys that a broker would not take are refused", () => {
  assert.throws(() => mintToken({ algorithm: "HS256", secret: "short" }, claims), RangeError);
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  assert.throws(() => mintToken({ algorithm: "EdDSA", key: privateKey }, claims), TypeError);
});
