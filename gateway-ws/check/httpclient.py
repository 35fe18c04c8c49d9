"""HTTP/1.1 and server-sent events by hand, so that what is written on the wire is what a check says."""

import asyncio
import json
import urllib.parse
from dataclasses import dataclass

from client import ANSWER_SECONDS, Refused, Wrong

HEAD_BYTES_MAX = 64 << 10


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes = b""

    def json(self):
        if self.headers.get("content-type") != "application/json":
            raise Wrong(f"the type of {self.status} is {self.headers.get('content-type')}: {self.body[:80]!r}")
        return json.loads(self.body)

    def wanted(self, *statuses):
        """What the body says, if the status is one of these; None where there is no body."""
        if self.status in statuses:
            return self.json() if self.body else None
        if self.status >= 400:
            raise Refused({**self.json(), "status": self.status})
        raise Wrong(f"status {self.status}, {statuses} was expected")


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ", 2)[1]), headers)


async def read_chunk(reader):
    """One chunk; b"" is the last."""
    size = int((await reader.readline()).split(b";")[0], 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


async def read_answer(reader, method):
    answer = await read_head(reader)
    if method == "HEAD" or answer.status in (204, 304):
        return answer
    if answer.headers.get("transfer-encoding") == "chunked":
        while chunk := await read_chunk(reader):
            answer.body += chunk
    else:
        answer.body = await reader.readexactly(int(answer.headers.get("content-length", "0")))
    return answer


class Http:
    """Requests to a gateway with one user's token, each on a connection of its own."""

    def __init__(self, url, token=None):
        self.parts, self.token = urllib.parse.urlsplit(url), token

    async def connect(self):
        return await asyncio.open_connection(self.parts.hostname, self.parts.port, limit=HEAD_BYTES_MAX)

    def head(self, method, path, body=b"", headers=None):
        said = {"Host": self.parts.netloc, "Content-Length": str(len(body)), **(headers or {})}
        if self.token:
            said.setdefault("Authorization", f"Bearer {self.token}")
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items() if value is not None)
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    async def raw(self, method, path, body=b"", headers=None, below="/api/v1"):
        """An answer, whatever it is. `body` is bytes, or what becomes JSON."""
        body = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        reader, writer = await self.connect()
        try:
            writer.write(self.head(method, below + path, body, headers) + body)
            return await asyncio.wait_for(read_answer(reader, method), ANSWER_SECONDS)
        finally:
            writer.close()

    async def get(self, path, **query):
        text = urllib.parse.urlencode(query)
        return (await self.raw("GET", path + (f"?{text}" if text else ""))).wanted(200)

    async def ask(self, method, path, body=b"", statuses=(200, 201, 204), **headers):
        answer = await self.raw(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return answer.wanted(*statuses)

    async def follow(self, log, query="", **headers):
        """A stream of server-sent events; raises what refuses it."""
        reader, writer = await self.connect()
        path = f"/api/v1/logs/{log}/stream{query}"
        writer.write(self.head("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}))
        answer = await asyncio.wait_for(read_head(reader), ANSWER_SECONDS)
        if answer.status != 200:
            answer.body = await reader.readexactly(int(answer.headers.get("content-length", "0")))
            writer.close()
            answer.wanted(200)
        return Events(answer, reader, writer)


class Events:
    """Server-sent events as the standard of HTML parses them."""

    def __init__(self, answer, reader, writer):
        self.headers, self.reader, self.writer, self.rest = answer.headers, reader, writer, b""
        if answer.headers.get("content-type") != "text/event-stream":
            raise Wrong(f"the type of the stream is {answer.headers.get('content-type')}")

    async def next(self, seconds=ANSWER_SECONDS):
        """(event, id, data as JSON); None at the end of the stream."""
        return await asyncio.wait_for(self._next(), seconds)

    async def _next(self):
        while True:
            while b"\n\n" not in self.rest:
                chunk = await read_chunk(self.reader)
                if not chunk:
                    return None
                self.rest += chunk
            block, self.rest = self.rest.split(b"\n\n", 1)
            fields = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                if name:  # else a comment
                    fields.setdefault(name, []).append(value.removeprefix(" "))
            if "data" in fields:
                return fields.get("event", ["message"])[0], fields.get("id", [""])[0], json.loads("\n".join(fields["data"]))

    async def rows(self, count):
        """So many rows, each with the position that it says."""
        found = []
        for _ in range(count):
            told = await self.next()
            if told is None or told[0] != "message":
                raise Wrong(f"{told} came, a row was expected")
            _, position, row = told
            if int(position.split("-")[1]) != row["seq"]:
                raise Wrong(f"id {position} of the row at {row['seq']}")
            found.append((position, row))
        return found

    def close(self):
        self.writer.close()
