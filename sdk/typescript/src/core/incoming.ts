/** What the broker says: a frame -> the part of the client that it concerns. */

import { type Answer, type AnswerOf, Fault, type OkFrame, readAuthenticated } from "../json.js";
import type { Connection, Step } from "./connection.js";
import type { Cursors } from "./cursors.js";
import { RefusedError } from "./error.js";
import { movesCursor, readBytes } from "./event.js";
import type { Link, Pending } from "./link.js";
import { readLastMessage } from "./message.js";
import type { Pages } from "./pages.js";
import type { Watch } from "./presence.js";
import type { Receipts } from "./receipts.js";
import type { Requests } from "./requests.js";
import type { Acked, Outbox } from "./sends.js";
import { readCursor } from "./subscription.js";
import type { FromLog, Subscriptions } from "./subscriptions.js";

/** The parts of a client. */
export interface Parts {
  readonly link: Link;
  readonly connection: Connection;
  readonly outbox: Outbox;
  readonly receipts: Receipts;
  readonly subscriptions: Subscriptions;
  readonly pages: Pages;
  readonly requests: Requests;
  readonly cursors: Cursors;
  readonly watch: Watch;
}

/** Takes a frame. Throws a [`Fault`] if the broker broke the protocol. */
export function takeFrame(parts: Parts, frame: Answer): Step {
  const { link, connection, subscriptions, pages } = parts;
  switch (frame.op) {
    case "WELCOME":
      link.answered(frame.id);
      return connection.welcome(frame);
    case "GOAWAY":
      connection.goaway(frame);
      return undefined;
    case "RESUME":
      return connection.resume(frame.jitter_ms);
    case "ERROR":
      return takeError(parts, frame);
    case "OK":
      return takeOk(parts, frame);
    case "ACK":
    case "BATCH_ACK":
      return takeAck(parts, frame);
    case "ATTACH":
      takeAttach(parts, frame);
      return undefined;
    case "PAGE": {
      link.answered(frame.id);
      const pulled = pages.answered(frame);
      if (pulled) subscriptions.pulled(pulled);
      return undefined;
    }
    case "MESSAGES_PAGE":
      link.answered(frame.id);
      pages.messagesAnswered(frame);
      return undefined;
    default:
      takeNews(parts, frame);
      return undefined;
  }
}

/** What the broker says without having been asked just now. */
function takeNews(parts: Parts, frame: Answer): void {
  const forLog = (handle: number, news: FromLog) => parts.subscriptions.frame(handle, news);
  switch (frame.op) {
    case "EVENT":
      if (movesCursor(frame)) takeCursor(parts, frame.handle, frame.sender, frame.seq, frame.seq);
      return forLog(frame.handle, { is: "event", row: frame });
    case "SKIP":
      return forLog(frame.handle, { is: "skip", first: frame.from, last: frame.to });
    case "BEHIND":
      return forLog(frame.handle, { is: "behind" });
    case "DETACH": {
      const last = frame.seq;
      if (frame.reason === "removed" || frame.reason === 1) {
        return forLog(frame.handle, { is: "detach", reason: { why: "removed", last } });
      }
      if (frame.reason === "deleted" || frame.reason === 2) {
        return forLog(frame.handle, { is: "detach", reason: { why: "deleted", last } });
      }
      // The answer to an UNSUBSCRIBE, whose handle has been forgotten or is attached anew.
      return undefined;
    }
    case "CURSORS":
      takeCursor(parts, frame.handle, frame.user, frame.delivered, frame.read);
      return forLog(frame.handle, { is: "cursor", cursor: readCursor(frame) });
    case "SIGNALED": {
      const { user, kind, data, ttl_ms } = frame;
      return forLog(frame.handle, { is: "signal", signal: { user, kind, data: readBytes(data), ttlMs: ttl_ms } });
    }
    case "HEAD": {
      const { log, epoch, seq, msgno, last } = frame;
      const digest = { log, head: { epoch, seq }, headMsgno: msgno, last: last && readLastMessage(last) };
      return parts.link.emit({ type: "digest", digest });
    }
    case "PRESENCE":
      return parts.watch.told(frame);
  }
}

function takeOk(parts: Parts, { id, body }: OkFrame): Step {
  const pending = parts.link.answered(id);
  switch (pending?.of) {
    case undefined:
    case "unsubscribe":
    case "cursor":
    case "check":
      return undefined;
    case "authenticate":
      parts.connection.authenticated(readAuthenticated(body).expires_at_ms);
      return undefined;
    case "request":
      parts.requests.answered(pending.id, body);
      return undefined;
    case "presence":
      parts.watch.answered();
      return undefined;
    case "bye":
      return parts.connection.saidBye();
    default:
      throw new Fault(`OK does not answer ${pending?.of}`);
  }
}

function takeAck(parts: Parts, frame: AnswerOf<"ACK"> | AnswerOf<"BATCH_ACK">): Step {
  const pending = parts.link.answered(frame.id);
  if (!pending) return undefined;
  if (pending.of !== "send") throw new Fault(`${frame.op} does not answer ${pending.of}`);
  const { log } = pending;
  if (frame.op === "ACK") {
    sent(parts, log, parts.outbox.acked(log, frame.id, frame));
    return undefined;
  }
  // One result per message, in order.
  const [written, results] = [parts.outbox.written(log, frame.id), frame.results.length];
  if (written !== results) throw new Fault(`a batch of ${written} messages has ${results} results`);
  for (const result of frame.results) {
    if (!result.error) {
      sent(parts, log, parts.outbox.acked(log, frame.id, result));
      continue;
    }
    const refusal = new RefusedError(result.error);
    if (refusal.action === "authenticate") parts.connection.tokenRefused(refusal);
    if (parts.outbox.refused(log, frame.id, refusal) === "reconnect") throw new Fault(stuck(log));
  }
  return undefined;
}

function sent(parts: Parts, log: string, acked: Acked | undefined): void {
  if (!acked) return;
  if (acked.hasRead) parts.cursors.note(log, acked.at.seq, acked.at.seq);
  parts.receipts.sent(acked.id, log, acked.at);
}

function takeError(parts: Parts, frame: AnswerOf<"ERROR">): Step {
  const refusal = new RefusedError(frame);
  const pending = parts.link.answered(frame.id);
  if (frame.id === 0 || pending?.of === "hello") return parts.connection.error(refusal);
  if (!pending) return undefined;
  if (refusal.action === "authenticate" && pending.of !== "authenticate") parts.connection.tokenRefused(refusal);
  return takeRefusal(parts, pending, frame.id, refusal);
}

function takeRefusal(parts: Parts, pending: Pending, request: number, refusal: RefusedError): Step {
  switch (pending.of) {
    case "authenticate":
      parts.connection.authenticationRefused(refusal);
      return undefined;
    case "subscribe":
      parts.subscriptions.refused(pending.id, pending.log, refusal);
      return undefined;
    case "page": {
      const pulled = parts.pages.refused(request, refusal);
      if (pulled) parts.subscriptions.pulled(pulled);
      return undefined;
    }
    case "cursor":
      parts.cursors.refused(pending.log, refusal);
      return undefined;
    case "send":
      if (parts.outbox.refusedAll(pending.log, request, refusal) === "reconnect") throw new Fault(stuck(pending.log));
      return undefined;
    case "request":
      parts.requests.refused(pending.id, refusal);
      return undefined;
    case "presence":
      parts.watch.refused(refusal);
      return undefined;
    case "bye":
      return parts.connection.saidBye();
    default:
      // A handle that the broker does not know (any more) is as good as unsubscribed.
      return undefined;
  }
}

function takeAttach(parts: Parts, attach: AnswerOf<"ATTACH">): void {
  const pending = parts.link.answered(attach.id);
  if (pending?.of !== "subscribe") throw new Fault("ATTACH answers no SUBSCRIBE");
  const { id, log } = pending;
  parts.subscriptions.attach(id, log, attach);
  if (attach.reset === "epoch_changed" || attach.reset === 1) parts.cursors.forget(log);
  for (const { user, delivered, read } of attach.cursors) takeCursor(parts, attach.handle, user, delivered, read);
  parts.cursors.attached(log);
}

/** Somebody has come this far in the log with this handle: the user, by this or another device, or somebody else. */
function takeCursor(parts: Parts, handle: number, user: string, delivered: number, read: number): void {
  const followed = parts.subscriptions.followed(handle);
  if (!followed) return;
  if (user === parts.connection.user) parts.cursors.note(followed.log, delivered, read);
  else parts.receipts.reached(followed.log, { epoch: followed.epoch, delivered, read });
}

function stuck(log: string): string {
  return `the broker keeps refusing the oldest message to ${log} as out of order`;
}
