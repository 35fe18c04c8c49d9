"""Bad frames on sockets: the documented ERROR and close code each time, and a bystander's chat goes on."""

import asyncio
import base64
import contextlib
import json

from websockets.exceptions import ConnectionClosed

import jsonform
import wire
from client import BINARY, JSON, Closed, Refused, new_id
from common import close_code, equal, expect, goes_on, with_bystander
from jsonvalue import Fault
from test_jsonform import VECTORS

NUMBERS = {"malformed": 3001, "unknown_frame": 3002, "frame_too_large": 3003, "unexpected_frame": 3004,
           "invalid_field": 3005, "unknown_fields": 3006, "limit_exceeded": 3011}


@with_bystander
async def every_refused_line(check, bystander):
    """The lines of protocol/vectors that a broker refuses, on a socket each where they end it."""
    socket, wrong = await check.session(), []
    for vector in VECTORS["refused"]:
        if not vector["line"].strip():
            continue  # between the lines of a message
        try:
            jsonform.read(vector["line"], "client")
        except Fault as fault:
            told = fault.frame
        if told and (told[0] in ("HELLO", "SIGNAL") or told[1] == 0):
            told = (told[0], 0)
        future = socket.asked("", told[1]) if told and told[1] else None
        await socket.write(vector["line"])
        try:
            if future:
                await socket.answer(future, "")
            elif told and told[0] == "SIGNAL":
                await goes_on(socket)
                continue
            else:
                code = await socket.close_code()
                error, socket = socket.last_error or {}, None
                if code != close_code(NUMBERS[vector["error"]]):
                    wrong.append(f"{vector['name']}: closed with {code}")
                raise Refused(error)
        except Refused as refusal:
            if (refusal.code, refusal.field) != (vector["error"], vector["field"]):
                wrong.append(f"{vector['name']}: {refusal}, not {vector['error']} {vector['field']}")
        except (Closed, asyncio.TimeoutError) as reason:
            wrong.append(f"{vector['name']}: {reason!r}")
            socket = None
        if socket is None:
            socket = await check.session()
            await bystander.chats()
    await goes_on(socket)
    expect(not wrong, "; ".join(wrong))


async def ends(check, bystander, data, number, protocol=JSON, before=False, field=None):
    """`data` ends a socket of its own, and nothing else."""
    socket = await (check.raw(protocol=protocol) if before else check.session(protocol=protocol))
    await socket.write(data)
    code = await socket.close_code()
    shown = f"{data[:60]!r}"
    equal(code, close_code(number), f"close code after {shown}")
    expect(socket.last_error is not None, f"no ERROR before the close after {shown}")
    equal(socket.last_error["number"], number, f"number after {shown}")
    if field is not None:
        equal(socket.last_error.get("field", ""), field, f"field after {shown}")
    await bystander.chats()


@with_bystander
async def what_is_no_frame(check, bystander):
    for line, number in (
        ("hello", 3001), ("{", 3001), ("[]", 3001), ("null", 3001), ("{}", 3001), ('{"op":null}', 3001), ("\ufeff{}", 3001),
        ('{"op":"BYE","id":1}x', 3001), ('{"op":"HELLO2","id":1}', 3002), ('{"op":"EVENT","handle":1}', 3004),
        ('{"op":"SYNC"}', 3001), ('{"op":"SYNC","id":0}', 3001), ("[" * 100_000, 3001),
        ('{"op":"SYNC","id":1,"x":' + "[" * 200_000 + "]" * 200_000 + "}", None),
        ('{"a":' * 100_000, 3001),
    ):
        if number is None:
            # JSON, if not as it should be: that request is refused.
            socket = await check.session()
            future = socket.asked("SYNC", 1)
            await socket.write(line)
            try:
                await socket.answer(future)
                raise RuntimeError("a nesting bomb was accepted")
            except Refused as refusal:
                equal(refusal.code, "malformed", "code of a nesting bomb")
            except Closed as closed:
                equal(closed.code, 4201, "close code of a nesting bomb")
            await bystander.chats()
        else:
            await ends(check, bystander, line, number)


@with_bystander
async def what_one_request_is_refused_for(check, bystander):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    ident = new_id()
    deep = "[" * 33 + "]" * 33
    for members, code, field in (
        (f'"op":"SEND","log":7,"client_message_id":"{ident}"', "malformed", "log"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","text":["a"]', "malformed", "text"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","tetx":"a"', "unknown_fields", "tetx"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","dseq":9007199254740992', "malformed", "dseq"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","dseq":{"9" * 400}', "malformed", "dseq"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","dseq":1.0', "malformed", "dseq"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","text":"a","text":"b"', "malformed", "text"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","text":"\\ud800"', "malformed", "text"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","data":{deep}', "malformed", "data"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","text":"{"x" * 65537}"', "limit_exceeded", "body"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","kind":"member"', "invalid_field", "kind"),
        (f'"op":"SEND","log":"{log}","client_message_id":"{ident}","dseq":1,"kind":16', "invalid_field", "kind"),
        ('"op":"FETCH","log":"lobby"', "invalid_field", "log"),
        ('"op":"CONVERSATION_CREATE","kind":7', "invalid_field", "kind"),
        ('"op":"CONVERSATION_CREATE","title":"' + "x" * 257 + '"', "invalid_field", "title"),
        ('"op":"CONVERSATION_CREATE","retention_s":59', "invalid_field", "retention_s"),
        ('"op":"AUTH"', "token_invalid", None),
        ('"op":"SEND_BATCH","records":[]', "unexpected_frame", None),
    ):
        if "SEND_BATCH" in members:
            # Not carried without the capability.
            number = socket.take_id()
            await socket.write(f'{{"id":{number},{members}}}')
            await check.closes(socket, 4204, 3004)
            break
        number = socket.take_id()
        future = socket.asked("", number)
        await socket.write(f'{{"id":{number},{members}}}')
        try:
            await socket.answer(future, "")
        except Refused as refusal:
            equal(refusal.code, code, f"code for {members[:90]}")
            if field is not None:
                equal(refusal.field, field, f"field for {members[:90]}")
    await bystander.chats()


@with_bystander
async def what_is_too_long(check, bystander):
    long = '{"op":"SYNC","id":1,"after":"' + "x" * (2 << 20) + '"}'
    for data, protocol in ((long, JSON), (wire.frame("SYNC", 1, bytes(2 << 20)), BINARY), (" " * (2 << 20), JSON)):
        socket = await check.session(protocol=protocol)
        with contextlib.suppress(ConnectionClosed):
            await socket.write(data)
        code = await socket.close_code()
        await bystander.chats()
        equal(code, 4203, f"close code after 2 MiB on {protocol}")


@with_bystander
async def the_wrong_kind_of_message(check, bystander):
    await ends(check, bystander, b'{"op":"SYNC","id":1}', 3001)
    await ends(check, bystander, '{"op":"SYNC","id":1}', 3001, BINARY)


@with_bystander
async def bad_binary_frames(check, bystander):
    whole = wire.frame("SYNC", 1)
    for data, number in (
        (whole[:-1], 3001), (wire.frame("SYNC", 1, b"\x0a\x05ab"[:3])[:-1], 3001), (b"\0", 3001),
        (whole + whole[:5], 3001),
        (wire.frame(0xFE, 1), 3002), (wire.HEADER.pack((1 << 20) - 11, 0x20, 0, 0, 1), 3003),
        (wire.HEADER.pack(0xFFFFFFFF, 0x20, 0, 0, 1), 3003), (wire.HEADER.pack(0, 0x04, 0, 1, 1), 3001),
        (wire.frame("WELCOME", 1), 3004), (wire.frame("HELLO", 1), 3004), (wire.frame("UNSUBSCRIBE", 0), 3001),
        (wire.frame(0x06, 1), 3004),
    ):
        await ends(check, bystander, data, number, BINARY)


@with_bystander
async def an_optional_unknown_frame_is_ignored(check, bystander):
    socket = await check.session(protocol=BINARY)
    await socket.write(b"")
    await goes_on(socket)
    await socket.write(wire.frame(0xFE, 7, b"abc", flags=wire.OPTIONAL))
    await goes_on(socket)


@with_bystander
async def frames_of_trunks(check, bystander):
    """CHANNEL_OPEN, CHANNEL_CLOSE, LAG and CHANNEL_CLOSED end the socket that wrote them, and disturb nobody."""
    for number in (0x60, 0x61, 0x62, 0x63):
        # An id of 0 is another fault in a frame of the broker.
        for ident in (0, 1, bystander.handle, 0xFFFFFFFF)[number == 0x63 :]:
            body = b"\x0a\x01x" if number == 0x60 else b""
            await ends(check, bystander, wire.frame(number, ident, body), 3004, BINARY)
            await ends(check, bystander, wire.frame(number, ident, body, flags=wire.OPTIONAL), 3004, BINARY)
    for op in ("CHANNEL_OPEN", "CHANNEL_CLOSE", "LAG", "CHANNEL_CLOSED"):
        await ends(check, bystander, json.dumps({"op": op, "id": bystander.handle}), 3004)
    # Hidden behind a good frame of the same message.
    await ends(check, bystander, wire.frame("SYNC", 5) + wire.frame(0x61, 0), 3004, BINARY)


@with_bystander
async def the_first_frame_is_hello(check, bystander):
    await ends(check, bystander, '{"op":"SYNC","id":1}', 3004, before=True)
    await ends(check, bystander, wire.frame("SYNC", 1), 3004, BINARY, before=True)
    await ends(check, bystander, wire.frame(0x62, bystander.handle), 3004, BINARY, before=True)
    await ends(check, bystander, '{"op":"HELLO","id":1,"versions":[1],"token":"' + "x" * 20_000 + '"}', 3011, before=True)
    await ends(check, bystander, '{"op":"HELLO","id":1,"versions":[999]}', 3007, before=True)
    await ends(check, bystander, '{"op":"HELLO","id":1,"versions":[1],"shout":1}', 3006, before=True, field="shout")
    await ends(check, bystander, '{"op":"HELLO","versions":[1]}', 3001, before=True)
    socket = await check.session()
    line, _ = socket.line("HELLO", {"versions": [1], "token": await check.token()})
    await socket.write(line)
    await check.closes(socket, 4204, 3004)


@with_bystander
async def bad_tokens(check, bystander):
    good = await check.token()
    claims = good.split(".")[1]
    forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).replace(
        b"gateway-check", b"gateway-chief")).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for token in ("", "x", "a.b.c", good[:-4] + "AAAA", good.replace(claims, forged), f"{none}.{claims}.", "é" * 20, good + " "):
        header = token.encode("ascii", "ignore").decode().strip()
        for options in ({}, {"token": header}) if header != good else ({},):
            socket = await check.raw(**options)
            try:
                await socket.hello("" if options else token)
                raise RuntimeError(f"accepted: {token[:40]!r} {options}")
            except (Refused, Closed):
                await check.closes(socket, 4101, 2001)
    await bystander.chats()
    expired = await check.tokens.make("gateway-check", "--lifetime", "1")
    accepted = True
    while accepted:  # until the broker's leeway is over, or the check's time
        socket = await check.raw()
        try:
            await socket.hello(expired)
        except (Refused, Closed):
            accepted = False
        await check.closes(socket, 4102, 2002)


CHECKS = [
    every_refused_line, what_is_no_frame, what_one_request_is_refused_for, what_is_too_long,
    the_wrong_kind_of_message, bad_binary_frames,
    an_optional_unknown_frame_is_ignored, frames_of_trunks, the_first_frame_is_hello, bad_tokens,
]
