"""One WebSocket to a gateway: frames as JSON lines or in binary, answers by request id, deliveries by handle."""

import asyncio
import json
import os
import time
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import jsonform
import wire
from jsonvalue import Fault, parse, plain
from jsonwritten import written_well

ANSWER_SECONDS = 10
JSON, BINARY = "antiphon.json.v1", "antiphon.bin.v1"
DELIVERIES = ("EVENT", "SKIP", "BEHIND", "DETACH")
STATE = ("CURSORS", "HEAD", "SIGNALED", "PRESENCE")


class Refused(Exception):
    """The broker or the gateway answered ERROR."""

    def __init__(self, error):
        super().__init__(f"{error.get('number', 0)} {error.get('code', '')} {error.get('field', '')}".strip())
        self.number, self.code = error.get("number", 0), error.get("code", "")
        self.field, self.error = error.get("field", ""), error


class Closed(Exception):
    """The socket is gone."""

    def __init__(self, code):
        super().__init__(f"the socket was closed with {code}")
        self.code = code


class Wrong(Exception):
    """An answer came, but not as specified."""


def new_id(clock_ms=0, ahead_ms=0):
    """A UUIDv7."""
    milliseconds = (clock_ms + time.monotonic_ns() // 1_000_000 if clock_ms else time.time_ns() // 1_000_000) + ahead_ms
    random = bytearray(os.urandom(10))
    random[0] = random[0] & 0x0F | 0x70
    random[2] = random[2] & 0x3F | 0x80
    return str(uuid.UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(random)))


class Socket:
    """A socket of either sub-protocol. Frames are dicts with `op`, as on the JSON one."""

    def __init__(self, ws, protocol):
        self.ws, self.protocol = ws, protocol
        self.waiting = {}  # request id -> (op, future)
        self.handles = {}  # handle -> queue of frames
        self.state = asyncio.Queue()
        self.resumes = asyncio.Queue()
        self.others = []  # answers to nobody
        self.last_error = None  # the ERROR with id 0
        self.fault = None  # what the gateway did against the specification
        self.next_id = 1
        self.welcome = None
        self.clock_ms = 0
        self.instance = str(uuid.uuid4())
        self.over = asyncio.get_running_loop().create_future()  # the close code
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url, protocol=JSON, token=None, origin=None, **options):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        ws = await connect(url.replace("http", "ws", 1) + "/api/v1/socket", subprotocols=[protocol] if protocol else None,
                           origin=origin, additional_headers=headers, compression=None, proxy=None, max_size=4 << 20,
                           ping_interval=None, close_timeout=3, **options)
        if ws.subprotocol != protocol:
            raise Wrong(f"the sub-protocol is {ws.subprotocol}")
        return cls(ws, protocol)

    async def close(self):
        await self.ws.close()
        await self.reader

    async def _read(self):
        code = 1006
        try:
            while True:
                message = await self.ws.recv()
                if isinstance(message, str) != (self.protocol == JSON):
                    self.fault = f"a message of the other type: {message[:40]!r}"
                for frame in self._frames(message):
                    self._frame(frame)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
        except (Fault, wire.Malformed, ValueError, KeyError) as fault:
            self.fault = f"{fault!r}"
            await self.ws.close()
        finally:
            self._end(code)

    def _frames(self, message):
        if isinstance(message, bytes):
            frames = wire.Frames()
            frames.push(message)
            yield from (self._from_binary(*frame) for frame in frames)
            if frames.buffer:
                raise wire.Malformed("a frame is cut")
            return
        for line in message.split("\n"):
            # As strict as a broker would be: what the gateway writes is of this version.
            written_well(line)
            frame = jsonform.read(line, "broker")
            found = {"id": 0, **plain(parse(line))}
            if frame.op in jsonform.BY_HANDLE:
                found.pop("id")
            yield found

    def _from_binary(self, name, ident, body):
        frame = {"op": name, "handle" if name in jsonform.BY_HANDLE else "id": ident}
        if name == "EVENT":
            frame["row"] = wire.Row.only(body)
        elif name == "ACK":
            frame["ack"] = wire.Ack.read(body)
        elif name == "PAGE":
            frame["page"] = wire.Page.read(body)
        elif name == "SKIP":
            frame["from"], frame["to"] = wire.skip(body)
        elif name == "OK":
            frame["body"] = body
        else:
            message = {"WELCOME": "Welcome", "ERROR": "Error", "ATTACH": "Attach", "DETACH": "Detach", "RESUME": "Resume",
                       "CURSORS": "MemberCursor", "HEAD": "Head", "SIGNALED": "Signaled", "PRESENCE": "Presence",
                       "GOAWAY": "Goaway", "MESSAGES_PAGE": "MessagesPage"}.get(name)
            frame.update(wire.decode(message, body) if message else {})
        return frame

    def _frame(self, frame):
        op = frame["op"]
        if op in STATE:
            self.state.put_nowait(frame)
        elif op in DELIVERIES:
            if frame["handle"] not in self.handles:
                raise ValueError(f"{op} of handle {frame['handle']}, which was not attached")
            self.handles[frame["handle"]].put_nowait(frame)
        elif op == "RESUME":
            self.resumes.put_nowait(frame)
            self._fail(Closed(0))
            self.handles.clear()
        elif op == "ERROR" and frame["id"] == 0:
            self.last_error = frame
            asked, future = self.waiting.pop(self.hello_id, (None, None)) if self.welcome is None else (None, None)
            if future and not future.done():
                future.set_exception(Refused(frame))
        elif op == "GOAWAY":
            pass
        else:
            if op == "ATTACH":
                self.handles[frame["handle"]] = asyncio.Queue()
            _, future = self.waiting.pop(frame["id"], (None, None))
            if future is None:
                self.others.append(frame)
            elif not future.done():
                future.set_result(frame)

    hello_id = 0

    def _fail(self, reason):
        for _, future in self.waiting.values():
            if not future.done():
                future.set_exception(reason)
                future.exception()  # nobody may look
        self.waiting.clear()

    def _end(self, code):
        if not self.over.done():
            self.over.set_result(code)
        self._fail(Closed(code))
        for queue in self.handles.values():
            queue.put_nowait({"op": "CLOSED"})

    async def write(self, data):
        """A message, whatever it is."""
        await self.ws.send(data)

    def asked(self, op, ident):
        future = asyncio.get_running_loop().create_future()
        if self.over.done():
            future.set_exception(Closed(self.over.result()))
        else:
            self.waiting[ident] = (op, future)
        return future

    def take_id(self):
        ident, self.next_id = self.next_id, self.next_id + 1
        return ident

    def line(self, op, members, ident=None):
        """A request as a line, and the future of its answer."""
        ident = self.take_id() if ident is None else ident
        if op == "HELLO":
            self.hello_id = ident
        return json.dumps({"op": op, "id": ident, **members}, ensure_ascii=False), self.asked(op, ident)

    async def request(self, op, expected="OK", **members):
        line, future = self.line(op, members)
        try:
            await self.ws.send(line)
        except ConnectionClosed:
            raise Closed(await self.close_code()) from None
        return await self.answer(future, expected)

    async def answer(self, future, expected="OK", seconds=ANSWER_SECONDS):
        frame = await asyncio.wait_for(future, seconds)
        if frame["op"] == "ERROR":
            raise Refused(frame)
        if frame["op"] != expected:
            raise Wrong(f"{frame['op']} answers, {expected} was expected")
        return frame

    async def hello(self, token="", **members):
        members = {"versions": [1], "token": token, "sender_instance": self.instance, "client": "gateway-check/1", **members}
        members = {name: value for name, value in members.items() if value not in (None, "")}
        if self.protocol == BINARY:
            frame = await self.binary("HELLO", "Hello", self._octets(members), "WELCOME")
        else:
            frame = await self.request("HELLO", "WELCOME", **members)
        self.welcome = frame
        self.clock_ms = frame["server_time_ms"] - time.monotonic_ns() // 1_000_000
        return frame

    @staticmethod
    def _octets(members):
        instance = members.get("sender_instance")
        return {**members, **({"sender_instance": uuid.UUID(instance).bytes} if instance else {})}

    async def binary(self, name, message, fields, expected="OK", answer=None):
        body = wire.encode(message, fields) if message else fields
        ident = self.take_id()
        if name == "HELLO":
            self.hello_id = ident
        future = self.asked(name, ident)
        await self.ws.send(wire.frame(name, ident, body))
        frame = await self.answer(future, expected)
        return wire.decode(answer, frame["body"]) if answer else frame

    def new_id(self, ahead_ms=0):
        return new_id(self.clock_ms, ahead_ms)

    async def send(self, log, text=None, **members):
        members.setdefault("client_message_id", self.new_id())
        if text is not None:
            members["text"] = text
        ack = await self.request("SEND", "ACK", log=log, **members)
        return {**ack, "seq": int(ack["position"].split("-")[1])}

    async def subscribe(self, log, **start):
        return await self.request("SUBSCRIBE", "ATTACH", log=log, **start)

    async def delivery(self, handle, seconds=ANSWER_SECONDS):
        return await asyncio.wait_for(self.handles[handle].get(), seconds)

    async def event(self, handle, seconds=ANSWER_SECONDS):
        frame = await self.delivery(handle, seconds)
        if frame["op"] != "EVENT":
            raise Wrong(f"{frame['op']} came, an EVENT was expected")
        return frame

    async def told(self, op, seconds=ANSWER_SECONDS):
        frame = await asyncio.wait_for(self.state.get(), seconds)
        if frame["op"] != op:
            raise Wrong(f"{frame['op']} came, {op} was expected")
        return frame

    async def silent(self, handle):
        """Nothing more of this handle came before the answer to a question."""
        await self.request("SYNC", limit=1)
        queue = self.handles[handle]
        if not queue.empty():
            raise Wrong(f"{queue.get_nowait()['op']} came, and nothing was to come")

    async def close_code(self, seconds=ANSWER_SECONDS):
        return await asyncio.wait_for(asyncio.shield(self.over), seconds)
