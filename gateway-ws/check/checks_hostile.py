"""Bad clients: handshakes, WebSocket frames by hand, readers that do not read. A bystander's chat goes on."""

import asyncio
import json
import socket as sockets
import struct
import urllib.parse

from websockets.exceptions import InvalidHandshake, InvalidStatus

from client import BINARY, JSON, Socket
from common import OTHER, equal, expect, goes_on, with_bystander
from rawsocket import Raw, by_hand


@with_bystander
async def handshakes(check, bystander):
    host = urllib.parse.urlsplit(check.url).netloc

    async def status(**options):
        try:
            socket = await Socket.open(check.url, **options)
        except InvalidStatus as refusal:
            return refusal.response.status_code
        except InvalidHandshake as refusal:
            return type(refusal).__name__
        await socket.close()
        return 101

    equal(await status(origin=f"http://{host}"), 101, "one's own origin")
    equal(await status(origin=None), 101, "no origin")
    for origin in ("https://evil.example", "null", f"http://{host}.evil.example", f"http://evil.example#{host}", "http://",
                   f"ftp://{host}", f"http://user@{host}"):
        equal(await status(origin=origin), 403, f"the origin {origin}")
    equal(await status(protocol=None), 400, "no sub-protocol")
    for protocol in ("antiphon.json.v2", "chat", "ANTIPHON.JSON.V1"):
        equal(await status(protocol=protocol), 400, f"the sub-protocol {protocol}")
    await bystander.chats()


@with_bystander
async def broken_websocket_frames(check, bystander):
    def end_after(send):
        raw = Raw(check.url)
        equal(raw.upgrade(), 101, "status")
        send(raw)
        code = raw.end()
        raw.socket.close()
        return code

    for name, send in (
        ("an unmasked frame", lambda raw: raw.send(1, b"{}", masked=False)),
        ("a reserved bit", lambda raw: raw.send(1, b"{}", rsv=0x40)),
        ("a reserved opcode", lambda raw: raw.send(3, b"{}")),
        ("a long Ping", lambda raw: raw.send(9, b"x" * 126)),
        ("a continuation of nothing", lambda raw: raw.send(0, b"{}")),
        ("a text that is no UTF-8", lambda raw: raw.send(1, b'{"op":"\xff"}')),
        ("a length of 2^62", lambda raw: raw.socket.sendall(b"\x81\xff" + struct.pack(">Q", 1 << 62) + b"\0\0\0\0")),
        ("a Close with one byte", lambda raw: raw.send(8, b"\x03")),
        ("an end in the middle of a frame", lambda raw: (raw.socket.sendall(b"\x81\xfe\x10\0\0\0\0\0abc"),
                                                        raw.socket.shutdown(sockets.SHUT_WR))),
    ):
        code = await by_hand(end_after, send)
        # 4211: more than there may be before WELCOME.
        expect(code is None or code in (1000, 1002, 1007, 1009, 4201, 4203, 4211), f"{name}: close code {code}")
        await bystander.chats()


@with_bystander
async def a_close_is_answered(check, bystander):
    """RFC 6455, section 5.5.1: whoever gets a Close sends one."""
    def close(raw, code):
        raw.send(8, struct.pack(">H", code))
        return raw.end()

    def before_hello():
        raw = Raw(check.url)
        raw.upgrade()
        return close(raw, 1000)

    equal(await by_hand(before_hello), 1000, "the Close that answers")


@with_bystander
async def pieces_and_pings(check, bystander):
    token = await check.token()

    def run():
        raw = Raw(check.url)
        equal(raw.upgrade(), 101, "status")
        line = json.dumps({"op": "HELLO", "id": 1, "versions": [1], "token": token}).encode()
        raw.send(1, line[:10], fin=False)
        raw.send(9, b"are you there")
        raw.send(0, line[10:20], fin=False)
        raw.send(0, line[20:])
        got = [raw.receive(), raw.receive()]
        equal((0xA, b"are you there") in got, True, "a Pong between the pieces")
        expect(any(opcode == 1 and b'"WELCOME"' in data for opcode, data in got), "WELCOME to a HELLO in pieces")
        raw.socket.close()

    await by_hand(run)


@with_bystander
async def bad_upgrades(check, bystander):
    def status(more="", **options):
        raw = Raw(check.url)
        try:
            return raw.upgrade(more, **options)
        except ConnectionError:
            return 0
        finally:
            raw.socket.close()

    expect(await by_hand(lambda: status(version="12")) in (400, 426), "another version of WebSocket")
    huge = await by_hand(lambda: status("X-Huge: " + "x" * (1 << 20) + "\r\n"))
    expect(huge in (431, 400, 0), f"a header of 1 MiB: {huge}")
    many = await by_hand(lambda: status("".join(f"X-{n}: 1\r\n" for n in range(2000))))
    expect(many in (431, 400, 0), f"2,000 headers: {many}")
    await bystander.chats()


@with_bystander
async def nothing_before_hello(check, bystander):
    for socket in [await check.raw(), await check.raw(protocol=BINARY)]:
        await check.closes(socket, 4105, 2005)


@with_bystander
async def a_dripping_hello(check, bystander):
    """Bytes that come do not move the end of the five seconds."""
    def run():
        raw = Raw(check.url)
        raw.upgrade()
        raw.socket.settimeout(0.3)
        raw.socket.sendall(b"\x81\xfe\x10\0\0\0\0\0")
        # The frame says 4,096 bytes; at this pace they would take 20 minutes, and the check ends long before.
        for _ in range(100):
            try:
                raw.socket.sendall(b"x")
                opcode, payload = raw.receive()
            except TimeoutError:
                continue
            except ConnectionError:
                return None
            if opcode == 8:
                return int.from_bytes(payload[:2], "big")
            if opcode is None:
                return None
        return "nothing"
    code = await by_hand(run)
    expect(code in (4105, None), f"{code} after 100 bytes")


@with_bystander
async def a_reader_that_never_reads(check, bystander):
    """5,000 messages of 1 KiB: all others get all; it gets BEHIND or a close."""
    writer, reader = await check.session(), await check.another()
    log, _ = await check.conversation(writer, members=[OTHER, "sleeper"])
    token = await check.token("sleeper")

    def sleeper():
        raw = Raw(check.url, buffer=4096)
        equal(raw.upgrade(), 101, "status")
        raw.send(1, json.dumps({"op": "HELLO", "id": 1, "versions": [1], "token": token}).encode())
        raw.send(1, json.dumps({"op": "SUBSCRIBE", "id": 2, "log": log, "tail": True}).encode())
        got = b""
        while b'"ATTACH"' not in got:
            got = raw.receive()[1]
        return raw

    asleep = await by_hand(sleeper)
    attach = await reader.subscribe(log, tail=True)
    expected = attach["live_from"]

    async def read():
        nonlocal attach, expected
        count = 0
        while count < 5000:
            frame = await reader.delivery(attach["handle"], 30)
            rows = [frame]
            if frame["op"] == "BEHIND":
                attach = await reader.subscribe(log, after=f"{attach['epoch']}-{expected - 1}")
                rows, begin = [], expected
                if not attach.get("inlined"):
                    while begin < attach["live_from"]:
                        page = await reader.request("FETCH", "PAGE", log=log, **{"from": begin}, to=attach["live_from"])
                        rows, begin = rows + page["rows"], page["next"] or attach["live_from"]
            for row in rows:
                equal(row["seq"], expected, "the next position of a reader who reads")
                expected, count = expected + 1, count + 1

    async def write():
        text, futures = "x" * 1024, []
        for n in range(5000):
            line, future = writer.line("SEND", {"log": log, "client_message_id": writer.new_id(), "text": text})
            await writer.write(line)
            futures.append(future)
            if n % 500 == 0:
                await bystander.chats()
        for future in futures:
            await writer.answer(future, "ACK", 30)

    await asyncio.gather(read(), write())

    def wake():
        while True:
            opcode, data = asleep.receive()
            if opcode in (None, 8):
                return "closed"
            if b'"BEHIND"' in data:
                return "behind"
    expect(await by_hand(wake) in ("behind", "closed"), "neither BEHIND nor a close")
    asleep.socket.close()


@with_bystander
async def two_hundred_reconnects(check, bystander):
    token = await check.token()
    for n in range(200):
        socket = await Socket.open(check.url, protocol=(JSON, BINARY)[n % 2])
        await socket.hello(token, device="restless")
        if n % 3:
            socket.ws.transport.abort()
        else:
            await socket.close()
        if n % 50 == 0:
            await bystander.chats()
    socket = await check.session("restless")
    await goes_on(socket)


@with_bystander
async def many_requests_at_once(check, bystander):
    """More than may wait for their answer: the rest stays unread, and each is answered in the end."""
    socket = await check.session()
    log, _ = await check.conversation(socket)
    futures, lines = [], []
    for n in range(3000):
        line, future = socket.line("CONVERSATION_GET" if n % 2 else "UNSUBSCRIBE", {"conversation": log[2:]} if n % 2 else {"handle": 1})
        lines.append(line)
        futures.append(future)
    for begin in range(0, 3000, 500):
        await socket.write("\n".join(lines[begin:begin + 500]))
    for future in futures:
        await socket.answer(future, "OK", 30)


CHECKS = [
    handshakes, broken_websocket_frames, a_close_is_answered, pieces_and_pings, bad_upgrades,
    nothing_before_hello, a_dripping_hello, a_reader_that_never_reads, two_hundred_reconnects,
    many_requests_at_once,
]
