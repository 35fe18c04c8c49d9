/** For back ends and tests, in Node: tokens, and a broker to test against. */

export { startTestBroker, type TestBroker, type TestBrokerOptions } from "./server/testBroker.js";
export { type Claims, type Grant, mintToken, type SigningKey } from "./server/token.js";
