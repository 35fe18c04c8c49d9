"""One connection to a broker: handshake, frames, answers by request id, deliveries by handle."""

import asyncio
import contextlib
import hashlib
import os
import ssl
import time
import uuid

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from cryptography.hazmat.primitives.serialization import Encoding

import wire

ANSWER_SECONDS = 10
CLASSES = ["control", "events", "state", "tokens", "backfill"]
DELIVERIES = ("EVENT", "SKIP", "BEHIND", "DETACH")


class Refused(Exception):
    """The broker answered ERROR."""

    def __init__(self, error):
        super().__init__(f"{error.get('number', 0)} {error.get('code', '')} {error.get('field', '')}".strip())
        self.number, self.code = error.get("number", 0), error.get("code", "")
        self.field, self.error = error.get("field", ""), error


class Closed(Exception):
    """The connection is gone."""

    def __init__(self, code):
        super().__init__(f"the connection was closed with {code}")
        self.code = code


class Connection(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.streams = {}  # stream id -> [class or None, frames]
        self.waiting = {}  # request id -> future
        self.handles = {}  # handle -> queue of (name, body)
        self.state = asyncio.Queue()  # (name, id, body) of the state stream
        self.last_error = None  # the ERROR with id 0
        self.fault = None  # what the broker did against the specification
        self.over = asyncio.get_running_loop().create_future()  # the close code
        self.control = None
        self.next_id = 1
        self.welcome = None
        self.clock_ms = 0

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self._end(event.error_code)
        elif isinstance(event, StreamDataReceived):
            try:
                self._received(event.stream_id, event.data)
            except (wire.Malformed, ValueError, KeyError) as fault:
                self.fault = f"stream {event.stream_id}: {fault!r}"
                self.close(error_code=3001)

    def _end(self, code):
        if not self.over.done():
            self.over.set_result(code)
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(Closed(code))
        self.waiting.clear()

    def _received(self, stream_id, data):
        known = self.streams.setdefault(stream_id, [0 if stream_id == self.control else None, wire.Frames()])
        known[1].push(data)
        for name, ident, body in known[1]:
            if known[0] is None:
                if name != "OPEN" or body:
                    raise wire.Malformed(f"the first frame is {name}")
                known[0] = ident
            else:
                self._frame(CLASSES[known[0]], name, ident, body)

    def _frame(self, stream, name, ident, body):
        expected = {"ATTACH": "events", "PAGE": "backfill", "MESSAGES_PAGE": "backfill", "CURSORS": "state", "HEAD": "state",
                    "SIGNALED": "state", "PRESENCE": "state"}
        wanted = "events" if name in DELIVERIES else expected.get(name, "control")
        if stream != wanted:
            raise wire.Malformed(f"{name} on the {stream} stream")
        if stream == "state":
            self.state.put_nowait((name, ident, body))
        elif name in DELIVERIES:
            self.handles[ident].put_nowait((name, body))
        elif name == "GOAWAY":
            pass
        elif name == "ERROR" and ident == 0:
            self.last_error = wire.decode("Error", body)
        else:
            if name == "ATTACH":
                # EVENTs may follow at once, before the answer's future is looked at.
                self.handles[wire.decode("Attach", body)["handle"]] = asyncio.Queue()
            self.waiting.pop(ident).set_result((name, body))

    def write(self, data):
        """Bytes on the control stream, whatever they are."""
        if self.control is None:
            self.control = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(self.control, data)
        self.transmit()

    def ask(self, name, body, ident=None):
        """Sends a request; the future holds (name, body) of its answer."""
        if ident is None:
            ident, self.next_id = self.next_id, self.next_id + 1
        future = asyncio.get_running_loop().create_future()
        if self.over.done():
            future.set_exception(Closed(self.over.result()))
            return future
        self.waiting[ident] = future
        self.write(wire.frame(name, ident, body))
        return future

    async def answer(self, future, expected):
        name, body = await asyncio.wait_for(future, ANSWER_SECONDS)
        if name == "ERROR":
            raise Refused(wire.decode("Error", body))
        if name != expected:
            raise wire.Malformed(f"{name} answers, {expected} was expected")
        return body

    async def request(self, name, message, fields, answer=None, expected="OK"):
        body = await self.answer(self.ask(name, wire.encode(message, fields)), expected)
        return wire.decode(answer, body) if answer else body

    async def hello(self, token, device="check", **fields):
        fields = {"versions": [1], "token": token, "device": device, "sender_instance": os.urandom(16),
                  "client": "python-check/1", **fields}
        self.welcome = await self.request("HELLO", "Hello", fields, "Welcome", "WELCOME")
        self.clock_ms = self.welcome["server_time_ms"] - time.monotonic_ns() // 1_000_000
        return self.welcome

    def new_id(self, ahead_ms=0):
        """A UUIDv7 by the broker's clock."""
        milliseconds = self.clock_ms + time.monotonic_ns() // 1_000_000 + ahead_ms
        random = bytearray(os.urandom(10))
        random[0] = random[0] & 0x0F | 0x70
        random[2] = random[2] & 0x3F | 0x80
        return uuid.UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(random))

    async def send(self, log, body, **fields):
        fields.setdefault("client_message_id", self.new_id())
        return wire.Ack.read(await self.answer(self.ask("SEND", wire.send(log, body, **fields)), "ACK"))

    async def subscribe(self, log, **start):
        return await self.request("SUBSCRIBE", "Subscribe", {"log": log, **start}, "Attach", "ATTACH")

    async def delivery(self, handle):
        return await asyncio.wait_for(self.handles[handle].get(), ANSWER_SECONDS)

    async def event(self, handle):
        name, body = await self.delivery(handle)
        if name != "EVENT":
            raise wire.Malformed(f"{name} came, an EVENT was expected")
        return wire.Row.only(body)

    async def fetch(self, log, **fields):
        return wire.Page.read(await self.request("FETCH", "Fetch", {"log": log, **fields}, expected="PAGE"))

    async def messages(self, log, **fields):
        """A page of messages as they stand: the rows, and the answer that holds them."""
        fields = {"log": log, "view": 1, **fields}
        page = await self.request("FETCH", "Fetch", fields, "MessagesPage", "MESSAGES_PAGE")
        return [wire.Row.only(message["row"]) for message in page.get("messages", [])], page

    async def overview(self, log):
        """What SYNC says of a conversation, page by page; None if it is not among the user's."""
        after = ""
        while True:
            answer = await self.request("SYNC", "Sync", {"after": after, "limit": 100}, "Synced")
            for entry in answer.get("entries", []):
                if entry["log"] == log:
                    return entry
            after = answer.get("next", "")
            if not after:
                return None

    async def fetch_all(self, log, begin, end, limit=0, backward=False):
        """Every row of [begin, end), page by page, and the number of pages."""
        rows, pages = [], 0
        while True:
            page = await self.fetch(log, **{"from": begin}, to=end, limit=limit, backward=backward)
            rows, pages = rows + list(page.rows), pages + 1
            if page.next == 0:
                return rows, pages
            begin, end = (begin, page.next) if backward else (page.next, end)

    async def owed(self, log, attach):
        """The rows that an ATTACH owes: inlined, or fetched."""
        begin, end = attach.get("replay_from", 0), attach.get("live_from", 0)
        if attach.get("inlined"):
            return [await self.event(attach["handle"]) for _ in range(begin, end)]
        return (await self.fetch_all(log, begin, end))[0] if begin < end else []

    async def close_code(self):
        """Waits until the broker has closed the connection."""
        return await asyncio.wait_for(asyncio.shield(self.over), ANSWER_SECONDS)

    def fingerprint(self):
        """SHA-256 of the server's certificate. aioquic has no public name for it."""
        return hashlib.sha256(self._quic.tls._peer_certificate.public_bytes(Encoding.DER)).hexdigest()


@contextlib.asynccontextmanager
async def open_connection(host, port, fingerprint, alpn=wire.ALPN):
    # The chain is not verified, because the fingerprint is, before anything is sent.
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE,
                                      server_name="localhost", idle_timeout=30)
    async with connect(host, port, configuration=configuration, create_protocol=Connection) as connection:
        if connection.fingerprint() != fingerprint:
            raise ssl.SSLError(f"the server's certificate is {connection.fingerprint()}")
        yield connection
        if connection.fault:
            raise wire.Malformed(connection.fault)
