/** For back ends and tests, in Node: the HTTP API, tokens, and a broker to test against. */

export {
  type Action,
  AntiphonError,
  ConnectionLostError,
  LimitError,
  RefusedError,
  UnreadableError,
} from "./core/error.js";
export type { Followed, FollowOptions } from "./server/follow.js";
export type { HttpOptions } from "./server/http.js";
export {
  type HistoryRange,
  HttpClient,
  HttpConversation,
  type SendOptions,
  type StoredReceipt,
  type Ticket,
} from "./server/httpClient.js";
export {
  startTestBroker,
  type TestBroker,
  type TestBrokerOptions,
  type TestTokenOptions,
} from "./server/testBroker.js";
export { type Claims, type Grant, mintToken, type SigningKey } from "./server/token.js";
