"""What a broker has to do, one function each. A function takes a `Check` and raises when the broker does otherwise."""

import asyncio
import contextlib
import uuid

import wire
from client import Closed, Refused, open_connection

OPEN_POLICY = 1
USER, OTHER_USER = "python-check", "python-check-other"
MESSAGE, CONVERSATION = 1, 17
HISTORY_JOINED, HISTORY_GONE = 1, 2


class Wrong(Exception):
    """The broker answered, but not as specified."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


def equal(found, expected, what):
    expect(found == expected, f"{what}: {expected!r} expected, {found!r} found")


@contextlib.contextmanager
def refused(code, field=None):
    """The block has to be refused with this code."""
    try:
        yield
    except Refused as refusal:
        equal(refusal.code, code, "code")
        if field is not None:
            equal(refusal.field, field, "field")
        expect(refusal.error.get("outcome", 0) == 0, "a refusal that says that its outcome is unknown")
        return
    raise Wrong(f"accepted, {code} was expected")


class Check:
    """The broker under test, and the connections that one check has open."""

    def __init__(self, host, port, fingerprint, token_of, stack):
        self.target, self.token_of, self.stack = (host, port, fingerprint), token_of, stack

    async def token(self):
        return await self.token_of(USER)

    async def raw(self, **options):
        return await self.stack.enter_async_context(open_connection(*self.target, **options))

    async def session(self, device="check", **hello):
        connection = await self.raw()
        await connection.hello(await self.token(), device, **hello)
        return connection

    async def another_user(self):
        """A session of another user; None if there is no token for one."""
        token = await self.token_of(OTHER_USER)
        if token is None:
            return None
        connection = await self.raw()
        await connection.hello(token)
        return connection

    async def conversation(self, connection, rows=0):
        """A new conversation of this session's user, with so many messages; and its log's name."""
        create = {"title": "python-check", "join_policy": OPEN_POLICY}
        made = await connection.request("CONVERSATION_CREATE", "ConversationCreate", create, "Conversation")
        expect(made.get("created"), "a new conversation says that it was created")
        log = f"c:{made['conversation']}"
        acks = [await connection.send(log, b"row %d" % n) for n in range(rows)]
        return log, acks

    async def closes(self, connection, number):
        """The broker says ERROR with id 0 and closes with its number."""
        equal(await connection.close_code(), number, "close code")
        expect(connection.last_error is not None, "no ERROR with id 0 before the close")
        equal(connection.last_error["number"], number, "number of the ERROR with id 0")


async def hello(check):
    connection = await check.raw()
    welcome = await connection.hello(await check.token(), "check")
    equal(welcome.get("version"), 1, "version")
    equal(len(welcome["session_id"]), 16, "bytes of session_id")
    expect(welcome["user"] and welcome["resume_token"], "user and resume_token are there")
    equal(welcome["device"], "check", "device")
    equal(welcome.get("resumed", False), False, "resumed")
    expect(welcome["expires_at_ms"] > welcome["server_time_ms"] > 1_600_000_000_000, "times are Unix milliseconds")
    for name, most in (("max_frame_bytes", 1 << 20), ("max_body_bytes", 64 << 10), ("max_subscriptions", 256)):
        expect(0 < welcome[name] <= most, f"{name} is {welcome[name]}")


async def another_alpn_is_refused(check):
    try:
        connection = await check.raw(alpn="antiphon/0")
    except (ConnectionError, TimeoutError, asyncio.TimeoutError):
        return
    raise Wrong(f"{connection} was accepted")


async def the_first_frame_is_hello(check):
    connection = await check.raw()
    connection.write(wire.frame("BYE", 1))
    await check.closes(connection, 3004)


async def an_unknown_version_is_refused(check):
    connection = await check.raw()
    with contextlib.suppress(Closed):
        await connection.hello(await check.token(), versions=[999])
    await check.closes(connection, 3007)


async def the_newest_common_version_is_chosen(check):
    connection = await check.session(versions=[999, 1])
    equal(connection.welcome["version"], 1, "version")


async def a_bad_token_is_refused(check):
    for token in ("", "x", "a.b.c", (await check.token())[:-4] + "AAAA"):
        connection = await check.raw()
        with contextlib.suppress(Closed):
            await connection.hello(token)
        await check.closes(connection, 2001)


async def an_unknown_field_in_hello_is_refused(check):
    connection = await check.raw()
    body = wire.encode("Hello", {"versions": [1], "token": await check.token(), "device": "check"}) + b"\x78\x01"
    with contextlib.suppress(Closed):
        await connection.ask("HELLO", body)
    await check.closes(connection, 3006)


async def bye(check):
    connection = await check.session()
    await connection.request("BYE", "Bye", {})
    equal(await connection.close_code(), 5004, "close code")


async def auth(check):
    connection = await check.session()
    answer = await connection.request("AUTH", "Auth", {"token": await check.token()}, "Authenticated")
    expect(answer["expires_at_ms"] > connection.welcome["server_time_ms"], "the new token expires later than now")
    with refused("token_invalid"):
        await connection.request("AUTH", "Auth", {"token": "a.b.c"})
    await check.conversation(connection)


async def a_newer_connection_of_the_device_replaces_the_older(check):
    older = await check.session("twice")
    await check.session("twice")
    equal(await older.close_code(), 5003, "close code")
    equal(older.last_error, None, "the frame that `replaced` comes without over QUIC")


async def send(check):
    connection = await check.session()
    log, [first, second] = await check.conversation(connection, 2)
    equal(second.seq, first.seq + 1, "seq of the second send")
    equal(second.msgno, first.msgno + 1, "msgno of the second send")
    equal((first.epoch, first.duplicate), (second.epoch, False), "epoch and duplicate flag")
    equal(first.event_id.version, 7, "version of event_id")
    with refused("not_found"):
        await connection.send("c:python-check-that-does-not-exist", b"x")


async def dedupe(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    ident = connection.new_id()
    first = await connection.send(log, b"once", client_message_id=ident)
    for sender in (connection, await check.session("dedupe-2")):
        again = await sender.send(log, b"once", client_message_id=ident)
        expect(again.duplicate, "the duplicate flag is set")
        equal((again.seq, again.epoch, again.event_id, again.msgno, again.time_ms),
              (first.seq, first.epoch, first.event_id, first.msgno, first.time_ms), "the first answer again")
        with refused("id_reused", "client_message_id"):
            await sender.send(log, b"twice", client_message_id=ident)
        with refused("id_reused"):
            await sender.send(log, b"once", client_message_id=ident, content_type=2)
    hashed = uuid.UUID(int=uuid.uuid4().int & ~(0xF << 76) | 8 << 76)
    equal((await connection.send(log, b"8", client_message_id=hashed)).duplicate, False, "a new UUIDv8")
    equal((await connection.send(log, b"8", client_message_id=hashed)).duplicate, True, "the same UUIDv8")
    other, _ = await check.conversation(connection)
    equal((await connection.send(other, b"x", client_message_id=ident)).duplicate, False, "the id in another log")
    rows, _ = await connection.fetch_all(log, first.seq, 0)
    equal([row.body for row in rows], [b"once", b"8"], "what is stored")


async def ids_have_a_version_and_a_time(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    with refused("clock_skew", "client_message_id"):
        await connection.send(log, b"x", client_message_id=connection.new_id(ahead_ms=120_000))
    with refused("invalid_field", "client_message_id"):
        await connection.send(log, b"x", client_message_id=uuid.uuid4())


async def dseq(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    first = await connection.send(log, b"5", dseq=5)
    with refused("out_of_order", "dseq"):
        await connection.send(log, b"7", dseq=7)
    sixth = await connection.send(log, b"6", dseq=6)
    seventh = await connection.send(log, b"7", dseq=7)
    equal((sixth.seq, seventh.seq), (first.seq + 1, first.seq + 2), "positions")
    await connection.send(log, b"unordered")
    with refused("invalid_field", "kind"):
        await connection.send(log, b"8", dseq=8, kind=16)
    await connection.send(log, b"9, for a refusal for good consumes 8", dseq=9)
    again = await check.session("dseq-2")
    await again.send(log, b"another connection begins anywhere", dseq=100)


async def sends_in_flight_keep_their_order(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    futures = [
        connection.ask("SEND", wire.send(log, b"%d" % n, client_message_id=connection.new_id(), dseq=n))
        for n in range(1, 101)
    ]
    acks = [wire.Ack.read(await connection.answer(future, "ACK")) for future in futures]
    equal([ack.seq for ack in acks], list(range(acks[0].seq, acks[0].seq + 100)), "positions of 100 sends")


async def batch(check):
    connection = await check.session(capabilities=["batch"])
    if "batch" not in connection.welcome.get("capabilities", []):
        return "not offered by this broker"
    log, _ = await check.conversation(connection)
    ids = [connection.new_id() for _ in range(3)]
    records = wire.send_batch([wire.send(log, b"%d" % n, client_message_id=ident) for n, ident in enumerate(ids)])
    for duplicate in (False, True):
        body = await connection.answer(connection.ask("SEND_BATCH", records), "BATCH_ACK")
        results = wire.decode("BatchAck", body)["results"]
        equal([result.get("duplicate", False) for result in results], [duplicate] * 3, "duplicate flags")
        begin = results[0]["position"]["seq"]
        equal([result["position"]["seq"] for result in results], [begin, begin + 1, begin + 2], "positions")


async def subscribe_tail(check):
    writer, reader = await check.session("writer"), await check.session("reader")
    log, _ = await check.conversation(writer, 3)
    attach = await reader.subscribe(log, tail=True)
    equal(attach["live_from"], attach["head"] + 1, "live_from")
    equal(attach["replay_from"], attach["live_from"], "replay_from")
    equal(attach.get("reset", 0), 0, "reset")
    ident = writer.new_id()
    ack = await writer.send(log, b"live", client_message_id=ident, dseq=9)
    row = await reader.event(attach["handle"])
    equal(row.seq, attach["live_from"], "seq of the first live event")
    equal((row.seq, row.msgno, row.time_ms, row.event_id), (ack.seq, ack.msgno, ack.time_ms, ack.event_id), "its ACK")
    equal((row.sender, row.via, row.body), (writer.welcome["user"], "", b"live"), "sender, via and body")
    equal((row.client_message_id, row.kind, row.content_type), (ident, MESSAGE, 0), "id, kind and content type")
    equal(row.content_hash, wire.content_hash(MESSAGE, 0, b"", b"live"), "content_hash")


async def the_sender_gets_its_own_echo(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    attach = await connection.subscribe(log, tail=True)
    ident = connection.new_id()
    ack = await connection.send(log, b"echo", client_message_id=ident)
    row = await connection.event(attach["handle"])
    equal((row.seq, row.client_message_id), (ack.seq, ident), "the echo")


async def subscribe_last(check):
    connection = await check.session()
    log, acks = await check.conversation(connection, 5)
    attach = await connection.subscribe(log, last=3)
    rows = await connection.owed(log, attach)
    equal([row.seq for row in rows], [ack.seq for ack in acks[-3:]], "the last three")
    everything = await check.session("last-2")
    attach = await everything.subscribe(log, last=1_000_000)
    equal(attach["replay_from"], attach["floor"], "replay_from of more rows than there are")
    rows = await everything.owed(log, attach)
    equal([row.seq for row in rows], list(range(attach["floor"], attach["live_from"])), "all rows")
    equal(rows[0].kind, CONVERSATION, "kind of the first row")


async def subscribe_after(check):
    connection = await check.session()
    log, acks = await check.conversation(connection, 5)
    attach = await connection.subscribe(log, after={"epoch": acks[1].epoch, "seq": acks[1].seq})
    equal((attach["replay_from"], attach.get("reset", 0)), (acks[1].seq + 1, 0), "replay_from and reset")
    owed = await connection.owed(log, attach)
    equal([row.event_id for row in owed], [ack.event_id for ack in acks[2:]], "what is owed")
    fresh = await check.session("after-2")
    attach = await fresh.subscribe(log, after={})
    rows = await fresh.owed(log, attach)
    equal([row.seq for row in rows], list(range(1, acks[-1].seq + 1)), "everything, after nothing")
    lost = await check.session("after-3")
    attach = await lost.subscribe(log, after={"epoch": acks[0].epoch + 1, "seq": acks[0].seq})
    equal((attach.get("reset"), attach["replay_from"]), (1, attach["floor"]), "reset after another epoch")
    with refused("invalid_field", "from"):
        await lost.subscribe(log)


async def a_large_deficit_is_fetched(check):
    writer, reader = await check.session("writer"), await check.session("reader")
    log, _ = await check.conversation(writer)
    futures = [writer.ask("SEND", wire.send(log, bytes(500), content_type=2, client_message_id=writer.new_id()))
               for _ in range(200)]
    for future in futures:
        await writer.answer(future, "ACK")
    attach = await reader.subscribe(log, after={})
    expect(not attach.get("inlined"), "200 rows are not inlined")
    live = await writer.send(log, b"meanwhile")
    rows = await reader.owed(log, attach)
    equal([row.seq for row in rows], list(range(attach["replay_from"], attach["live_from"])), "what is owed")
    equal((await reader.event(attach["handle"])).seq, live.seq, "the live event")
    equal(live.seq, attach["live_from"], "live_from")


async def unsubscribe(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    attach = await connection.subscribe(log, tail=True)
    await connection.request("UNSUBSCRIBE", "Unsubscribe", {"handle": attach["handle"]})
    name, body = await connection.delivery(attach["handle"])
    equal((name, wire.decode("Detach", body).get("reason", 0)), ("DETACH", 0), "what ends it")
    await connection.send(log, b"unheard")
    again = await connection.subscribe(log, last=1)
    equal([row.body for row in await connection.owed(log, again)], [b"unheard"], "the last row")


async def pages(check):
    connection = await check.session()
    log, acks = await check.conversation(connection, 10)
    begin, end = acks[0].seq, acks[-1].seq + 1
    expected = [ack.event_id for ack in acks]
    rows, count = await connection.fetch_all(log, begin, end, limit=3)
    equal(([row.event_id for row in rows], count), (expected, 4), "ten rows forward, three a page")
    rows, count = await connection.fetch_all(log, begin, end, limit=3, backward=True)
    equal(([row.event_id for row in rows], count), (expected[::-1], 4), "ten rows backward, three a page")
    page = await connection.fetch(log, limit=1)
    equal([row.seq for row in page.rows], [page.floor], "the first row of all")
    page = await connection.fetch(log, limit=1, backward=True)
    equal([row.seq for row in page.rows], [page.head], "the last row of all")
    page = await connection.fetch(log, **{"from": end + 5}, to=end + 9)
    equal((page.rows, page.next), ((), 0), "a range behind the head")
    with refused("not_found"):
        await connection.fetch("c:python-check-that-does-not-exist")


async def resume(check):
    writer = await check.session("writer")
    log, _ = await check.conversation(writer)
    async with contextlib.AsyncExitStack() as stack:
        phone = await Check(*check.target, check.token_of, stack).session("phone")
        first = phone.welcome
        attach = await phone.subscribe(log, tail=True)
        ident = phone.new_id()
        await phone.send(log, b"before", client_message_id=ident)
        last = await phone.event(attach["handle"])
    missed = [await writer.send(log, b"missed %d" % n) for n in range(5)]
    phone = await check.session("phone", resume_token=first["resume_token"])
    equal((phone.welcome.get("resumed"), phone.welcome["session_id"]), (True, first["session_id"]), "the session")
    again = await phone.send(log, b"before", client_message_id=ident)
    equal((again.seq, again.duplicate), (last.seq, True), "an old send again")
    attach = await phone.subscribe(log, after={"epoch": attach["epoch"], "seq": last.seq})
    rows = await phone.owed(log, attach)
    live = await writer.send(log, b"after")
    rows.append(await phone.event(attach["handle"]))
    equal([row.seq for row in rows], [ack.seq for ack in [*missed, live]], "no gap and no repetition")
    other = await check.session("laptop", resume_token=first["resume_token"])
    equal(other.welcome.get("resumed", False), False, "the token on another device")
    broken = await check.session("phone", resume_token=b"nonsense")
    equal(broken.welcome.get("resumed", False), False, "a token that nobody sealed")


async def malformed_bodies_refuse_one_request(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    ident = connection.new_id()
    good = wire.send(log, b"x", client_message_id=ident)
    for body, code, field in (
        (b"", "malformed", "client_message_id"),
        (good[:31], "malformed", "zero"),
        (good[:33], "malformed", "log"),
        (good[:25] + b"\x03" + good[26:], "malformed", "content_type"),
        (wire.send("lobby", b"x", client_message_id=ident), "invalid_field", "log"),
        (wire.send("c:a b", b"x", client_message_id=ident), "invalid_field", "log"),
        (wire.send(log, bytes((64 << 10) + 1), client_message_id=ident), "limit_exceeded", "body"),
        (wire.send(log, b"\xff", client_message_id=ident), "invalid_field", "body"),
    ):
        with refused(code, field):
            await connection.answer(connection.ask("SEND", body), "ACK")
    for message, name, body, code in (
        ("Subscribe", "SUBSCRIBE", b"\x78\x01", "unknown_fields"),
        ("Subscribe", "SUBSCRIBE", b"\x0a\x05c", "malformed"),
        ("Fetch", "FETCH", b"\x0a\x00", "unknown_fields"),
    ):
        with refused(code):
            await connection.answer(connection.ask(name, body), "OK")
    create = {"title": "x", "kind": 7}
    with refused("invalid_field"):
        await connection.request("CONVERSATION_CREATE", "ConversationCreate", create)
    await connection.send(log, b"the session goes on", client_message_id=ident)


async def malformed_frames_end_the_connection(check):
    for data, number in (
        (wire.frame(0xFE, 1), 3002),
        (wire.HEADER.pack((1 << 20) - 11, 0x20, 0, 0, 1), 3003),
        (wire.HEADER.pack(0xFFFFFFFF, 0x20, 0, 0, 1), 3003),
        (wire.HEADER.pack(0, 0x04, 0, 1, 1), 3001),
        (wire.frame("WELCOME", 1), 3004),
        (wire.frame("HELLO", 1), 3004),
        (wire.frame("UNSUBSCRIBE", 0), 3001),
    ):
        connection = await check.session()
        connection.write(data)
        await check.closes(connection, number)


async def an_optional_unknown_frame_is_ignored(check):
    connection = await check.session()
    connection.write(wire.frame(0xFE, 1, b"abc", flags=wire.OPTIONAL))
    await check.conversation(connection, 1)


async def a_frame_may_come_byte_by_byte(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    ident = connection.next_id
    connection.next_id += 1
    future = asyncio.get_running_loop().create_future()
    connection.waiting[ident] = future
    for byte in wire.frame("SEND", ident, wire.send(log, b"slow", client_message_id=connection.new_id())):
        connection.write(bytes([byte]))
        await asyncio.sleep(0)
    expect(wire.Ack.read(await connection.answer(future, "ACK")).seq > 0, "a position")


async def cursors(check):
    writer, mover = await check.session("writer"), await check.another_user()
    if mover is None:
        return "no token for another user"
    log, acks = await check.conversation(writer, 3)
    await mover.request("JOIN", "Join", {"conversation": log[2:]}, "Conversation")
    await writer.subscribe(log, tail=True)
    user = mover.welcome["user"]
    moved = {"log": log, "delivered": acks[2].seq, "read": acks[1].seq}
    await mover.request("CURSOR", "Cursor", moved)
    name, _, body = await asyncio.wait_for(writer.state.get(), 10)
    cursor = wire.decode("MemberCursor", body)
    equal((name, cursor["user"], cursor["delivered"], cursor["read"], cursor["read_msgno"]),
          ("CURSORS", user, acks[2].seq, acks[1].seq, acks[1].msgno), "the cursor")
    await mover.request("CURSOR", "Cursor", {"log": log, "read": acks[0].seq})
    attach = await (await check.session("third")).subscribe(log, tail=True)
    positions = {one["user"]: one["read"] for one in attach["cursors"]}
    equal(positions[user], acks[1].seq, "a cursor that never moves back")
    equal(positions[writer.welcome["user"]], acks[2].seq, "the cursor of who sent")
    with refused("invalid_field"):
        await mover.request("CURSOR", "Cursor", {"log": log, "read": acks[2].seq + 100})


async def signals(check):
    writer, reader = await check.session("writer"), await check.session("reader")
    log, _ = await check.conversation(writer)
    attach = await reader.subscribe(log, tail=True)
    writer.write(wire.frame("SIGNAL", 0, wire.encode("Signal", {"log": log, "kind": "typing", "data": b"\x01"})))
    name, _, body = await asyncio.wait_for(reader.state.get(), 10)
    signal = wire.decode("Signaled", body)
    equal((name, signal["handle"], signal["user"], signal["kind"], signal["data"], signal["ttl_ms"]),
          ("SIGNALED", attach["handle"], writer.welcome["user"], "typing", b"\x01", 6_000), "the signal")


async def a_bad_signal_is_not_answered(check):
    connection = await check.session()
    connection.write(wire.frame("SIGNAL", 0, b"\x78\x01"))
    connection.write(wire.frame("SIGNAL", 0, wire.encode("Signal", {"log": "nonsense", "kind": "typing"})))
    await check.conversation(connection, 1)
    expect(connection.last_error is None, "an ERROR with id 0 on a connection that stays open")


async def overview(connection, log, listed=True):
    """SYNC's entry of a conversation, once the membership has reached the user's inbox; or None, once its end has."""
    for _ in range(200):
        entry = await connection.overview(log)
        if (entry is not None) == listed:
            return entry
        await asyncio.sleep(0.05)
    raise Wrong(f"SYNC {'does not name' if listed else 'still names'} {log}")


async def messages_as_they_stand(check):
    connection = await check.session()
    log, acks = await check.conversation(connection, 5)
    rows, page = await connection.messages(log)
    equal([row.seq for row in rows], [ack.seq for ack in acks], "the messages, and nothing else")
    equal(page["head"], acks[-1].seq, "head")
    rows, page = await connection.messages(log, limit=2, backward=True)
    equal([row.seq for row in rows], [ack.seq for ack in reversed(acks[-2:])], "the newest two")
    rows, _ = await connection.messages(log, limit=2, backward=True, to=page["next"])
    equal([row.seq for row in rows], [ack.seq for ack in reversed(acks[1:3])], "the two before them")


async def what_is_hidden_is_hidden_from_oneself(check):
    connection, other = await check.session(), await check.another_user()
    if other is None:
        return "no token for another user"
    log, acks = await check.conversation(connection, 3)
    await other.request("JOIN", "Join", {"conversation": log[2:]}, "Conversation")
    hide = {"log": log, "event_id": acks[1].event_id.bytes, "seq": acks[1].seq}
    for _ in range(2):
        await connection.request("HIDE", "Hide", hide)
    rows, _ = await connection.messages(log)
    equal([row.seq for row in rows], [acks[0].seq, acks[2].seq], "one's own page of messages")
    rows, _ = await other.messages(log)
    equal([row.seq for row in rows], [ack.seq for ack in acks], "another user's")
    rows, _ = await connection.fetch_all(log, acks[0].seq, acks[2].seq + 1)
    equal([row.seq for row in rows], [ack.seq for ack in acks], "rows, which are never left out")


async def sync_lists_own_conversations(check):
    connection, other = await check.session(), await check.another_user()
    if other is None:
        return "no token for another user"
    log, acks = await check.conversation(connection, 3)
    await other.request("JOIN", "Join", {"conversation": log[2:]}, "Conversation")
    entry = await overview(other, log)
    equal((entry["title"], entry["head"], entry["head_msgno"]), ("python-check", acks[2].seq + 1, 3), "the entry")
    equal((entry["last"]["seq"], entry["last"]["body"]), (acks[2].seq, b"row 2"), "the newest message")
    equal(entry.get("read_msgno", 0), 0, "what nobody has read")
    await other.request("CURSOR", "Cursor", {"log": log, "read": acks[1].seq})
    equal((await overview(other, log))["read_msgno"], 2, "read_msgno")
    with refused("not_found"):
        await other.request("PREFERENCES", "Preferences", {"conversation": "python-check-nowhere", "pinned": True})
    await other.request("PREFERENCES", "Preferences", {"conversation": log[2:], "pinned": True})
    entry = await overview(other, log)
    equal((entry.get("pinned", False), entry.get("muted", False)), (True, False), "pinned and muted")
    await other.request("LEAVE", "Leave", {"conversation": log[2:]})
    await overview(other, log, listed=False)


async def presence(check):
    watcher, other = await check.session(), await check.another_user()
    if other is None:
        return "no token for another user"
    user = other.welcome["user"]
    await other.request("PRESENCE_SET", "PresenceSet", {"status": 1, "text": "at tea"})
    await watcher.request("PRESENCE_SUBSCRIBE", "PresenceSubscribe", {"users": [user]})

    async def told():
        name, _, body = await asyncio.wait_for(watcher.state.get(), 10)
        equal(name, "PRESENCE", "the frame")
        return wire.decode("Presence", body)

    now = await told()
    equal((now["user"], now["status"], now["text"]), (user, 1, "at tea"), "how the user is now")
    await other.request("PRESENCE_SET", "PresenceSet", {"status": 2, "text": "back"})
    now = await told()
    equal((now["status"], now["text"]), (2, "back"), "the change")
    with refused("limit_exceeded"):
        await watcher.request("PRESENCE_SUBSCRIBE", "PresenceSubscribe", {"users": [f"u{n}" for n in range(65)]})


async def members(check):
    connection = await check.session()
    log, _ = await check.conversation(connection)
    ident, me = log[2:], connection.welcome["user"]
    attach = await connection.subscribe(log, tail=True)
    add = {"conversation": ident, "members": [{"user": "python-check-bob"}]}
    answer = await connection.request("MEMBER_ADD", "MemberAdd", add, "Conversation")
    roles = {member["user"]: member.get("role", 0) for member in answer["members"]}
    equal(roles, {me: 2, "python-check-bob": 0}, "members and roles")
    row = await connection.event(attach["handle"])
    change = wire.decode("MemberEvent", row.body)
    equal((row.kind, row.content_type, change.get("change", 0)), (16, 3, 0), "kind, content type and change")
    equal([member["user"] for member in change["members"]], ["python-check-bob"], "who was added")
    remove = {"conversation": ident, "user": "python-check-bob"}
    answer = await connection.request("MEMBER_REMOVE", "MemberRemove", remove, "Conversation")
    equal([member["user"] for member in answer["members"]], [me], "members after the removal")
    with refused("forbidden"):
        await connection.request("MEMBER_SET_ROLE", "MemberSetRole", {"conversation": ident, "user": me, "role": 0})
    await connection.request("CONVERSATION_UPDATE", "ConversationUpdate", {"conversation": ident, "title": ""})
    answer = await connection.request("CONVERSATION_GET", "ConversationGet", {"conversation": ident}, "Conversation")
    equal(answer.get("title", ""), "", "the title")


async def history_begins_with_the_joining(check):
    writer, joiner = await check.session("writer"), await check.another_user()
    if joiner is None:
        return "no token for another user"
    create = {"join_policy": OPEN_POLICY, "history": HISTORY_JOINED}
    made = await writer.request("CONVERSATION_CREATE", "ConversationCreate", create, "Conversation")
    ident, log = made["conversation"], f"c:{made['conversation']}"
    before = [await writer.send(log, b"before %d" % n) for n in range(3)]
    answer = await joiner.request("JOIN", "Join", {"conversation": ident}, "Conversation")
    joined = {member["user"]: member["joined_seq"] for member in answer["members"]}[joiner.welcome["user"]]
    equal(joined, before[-1].seq + 1, "joined_seq")
    page = await joiner.fetch(log, **{"from": 1})
    equal(([row.seq for row in page.rows], page.floor), ([joined], joined), "what a new member reads")
    attach = await joiner.subscribe(log, after={"epoch": before[0].epoch, "seq": before[0].seq})
    equal((attach.get("reset"), attach["replay_from"], attach["floor"]), (HISTORY_GONE, joined, joined), "the reset")
    page = await writer.fetch(log, **{"from": 1})
    equal(page.rows[0].seq, 1, "what a member of the beginning reads")
    await writer.request("CONVERSATION_UPDATE", "ConversationUpdate", {"conversation": ident, "history": 0})
    page = await joiner.fetch(log, **{"from": 1})
    equal(page.rows[0].seq, 1, "what everybody reads once the history is full")
    with refused("invalid_field", "history"):
        await writer.request("CONVERSATION_UPDATE", "ConversationUpdate", {"conversation": ident, "history": 7})


async def retention_is_a_property(check):
    connection = await check.session()
    for too_short in (1, 59):
        with refused("invalid_field", "retention_s"):
            await connection.request("CONVERSATION_CREATE", "ConversationCreate", {"retention_s": too_short})
    create = {"retention_s": 60}
    made = await connection.request("CONVERSATION_CREATE", "ConversationCreate", create, "Conversation")
    ident = made["conversation"]
    equal(made.get("retention_s"), 60, "retention_s of a new conversation")
    attach = await connection.subscribe(f"c:{ident}", tail=True)
    await connection.request("CONVERSATION_UPDATE", "ConversationUpdate", {"conversation": ident, "retention_s": 0})
    row = await connection.event(attach["handle"])
    equal(wire.decode("ConversationEvent", row.body).get("retention_s", 0), 0, "retention_s of the event")
    answer = await connection.request("CONVERSATION_GET", "ConversationGet", {"conversation": ident}, "Conversation")
    equal(answer.get("retention_s", 0), 0, "retention_s afterwards")


async def a_deleted_conversation_is_gone(check):
    connection = await check.session()
    log, _ = await check.conversation(connection, 1)
    attach = await connection.subscribe(log, tail=True)
    await connection.request("CONVERSATION_DELETE", "ConversationDelete", {"conversation": log[2:]}, "Conversation")
    row = await connection.event(attach["handle"])
    equal(row.kind, CONVERSATION, "the last event")
    name, body = await connection.delivery(attach["handle"])
    detach = wire.decode("Detach", body)
    equal((name, detach.get("reason"), detach.get("seq")), ("DETACH", 2, row.seq), "what ends it")
    with refused("not_found"):
        await connection.fetch(log)
    with refused("not_found"):
        await connection.send(log, b"x")


CHECKS = {
    "hello": [hello, another_alpn_is_refused, the_first_frame_is_hello, an_unknown_version_is_refused,
              the_newest_common_version_is_chosen, a_bad_token_is_refused, an_unknown_field_in_hello_is_refused, bye,
              auth, a_newer_connection_of_the_device_replaces_the_older],
    "send": [send, sends_in_flight_keep_their_order, ids_have_a_version_and_a_time, batch],
    "dedupe": [dedupe],
    "dseq": [dseq],
    "subscribe": [subscribe_tail, the_sender_gets_its_own_echo, subscribe_last, subscribe_after,
                  a_large_deficit_is_fetched, unsubscribe],
    "pages": [pages],
    "resume": [resume],
    "malformed": [malformed_bodies_refuse_one_request, malformed_frames_end_the_connection,
                  an_optional_unknown_frame_is_ignored, a_frame_may_come_byte_by_byte],
    "state": [cursors, signals, a_bad_signal_is_not_answered, presence],
    "own": [messages_as_they_stand, what_is_hidden_is_hidden_from_oneself, sync_lists_own_conversations],
    "conversations": [members, history_begins_with_the_joining, retention_is_a_property,
                      a_deleted_conversation_is_gone],
}
