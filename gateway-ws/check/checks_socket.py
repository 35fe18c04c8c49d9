"""What a gateway has to do on sockets, one function each. A function takes a `Check` and raises when it does otherwise."""

import asyncio
import base64
import json
import uuid

import wire
from client import BINARY, Closed, new_id
from common import OTHER, USER, Skip, equal, expect, refused


async def hello(check):
    socket = await check.raw()
    welcome = await socket.hello(await check.token(), device="one")
    equal(welcome["version"], 1, "version")
    uuid.UUID(welcome["session_id"])
    equal((welcome["user"], welcome["device"], welcome.get("resumed", False)), (USER, "one", False), "user and device")
    expect(welcome["expires_at_ms"] > welcome["server_time_ms"] > 1_600_000_000_000, "times are Unix milliseconds")
    for name, most in (("max_frame_bytes", 1 << 20), ("max_body_bytes", 64 << 10), ("max_subscriptions", 256)):
        expect(0 < welcome[name] <= most, f"{name} is {welcome[name]}")
    unnamed = await check.session()
    expect(unnamed.welcome["device"].startswith("~"), "a device that the broker names")


async def the_token_may_come_in_the_upgrade(check):
    socket = await check.raw(token=await check.token())
    equal((await socket.hello(""))["user"], USER, "user")
    both = await check.raw(token=await check.token(OTHER))
    equal((await both.hello(await check.token()))["user"], USER, "HELLO's own token")


async def the_newest_common_version_is_chosen(check):
    socket = await check.session(versions=[999, 1])
    equal(socket.welcome["version"], 1, "version")


async def send(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    attach = await socket.subscribe(log, tail=True)
    text = "tea \"\\/\b\f\n\r\t\u0000\u001f\u007f grüß 你好 😀 \u2028\u2029"
    ident = socket.new_id()
    ack = await socket.send(log, text, client_message_id=ident, dseq=1)
    event = await socket.event(attach["handle"])
    equal((event["seq"], event["text"], event["client_message_id"]), (ack["seq"], text, ident), "the echo")
    equal((event["event_id"], event["msgno"], event["time_ms"]), (ack["event_id"], ack["msgno"], ack["time_ms"]), "its ACK")
    equal((event["sender"], event["kind"], event.get("via")), (USER, "message", None), "sender, kind and via")
    digest = wire.content_hash(1, 0, b"", text.encode())
    equal(event["content_hash"], f"{digest:016x}", "content_hash")
    with refused("not_found"):
        await socket.send("c:gateway-check-that-does-not-exist", "x")


async def every_content(check):
    socket = await check.session()
    log, acks = await check.conversation(socket, 1)
    attach = await socket.subscribe(log, tail=True)
    where = {"seq": acks[0]["seq"], "event_id": acks[0]["event_id"]}
    for sent, told in (
        ({}, {}),
        ({"text": ""}, {}),
        ({"body_b64": "AP8"}, {"body_b64": "AP8"}),
        ({"body_b64": "aGk", "content_type": "text/plain"}, {"text": "hi"}),
        ({"body_b64": "", "content_type": "application/octet-stream"}, {"content_type": "application/octet-stream"}),
        ({"data": None}, {"data": None}),
        ({"data": {"a": [1.5, "😀", {}]}, "content_type": "application/json"}, {"data": {"a": [1.5, "😀", {}]}}),
        ({"text": "to you", "mentions": ["ann", OTHER], "silent": True, "expires_at_ms": 1 << 50},) * 2,
        ({"text": "yes", "reply_to": where, "thread": where},) * 2,
        ({"text": "files", "attachments": [{"url": "https://files.example/1", "name": "a b.png", "mime": "image/png", "size": 9,
                                            "width": 3, "height": 4, "duration_ms": 5, "thumbnail_url": "x:1"}],
          "properties": {"k": "v", "": "empty"}} if False else {"text": "p", "properties": {"k": "v", "ü": ""}},) * 2,
        ({"text": "files", "attachments": [{"url": "https://files.example/1", "name": "a b.png", "mime": "image/png", "size": 9,
                                            "width": 3, "height": 4, "duration_ms": 5, "thumbnail_url": "x:1"}]},) * 2,
    ):
        await socket.send(log, **sent)
        event = await socket.event(attach["handle"])
        rest = {name: one for name, one in event.items() if name not in (
            "op", "handle", "seq", "msgno", "time_ms", "event_id", "client_message_id", "content_hash", "kind", "sender")}
        equal(rest, told, f"what became of {sent}")


async def data_keeps_its_bytes(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    attach = await socket.subscribe(log, tail=True)
    for data in ('{"a": 1.50,  "b":\t[1e999,-0,18446744073709551616]}', '"\\u0061\\/"', "null", "[" * 32 + "]" * 32):
        ident = socket.take_id()
        future = socket.asked("SEND", ident)
        await socket.write(f'{{"op":"SEND","id":{ident},"log":"{log}","client_message_id":"{socket.new_id()}","data":  {data} }}')
        await socket.answer(future, "ACK")
        digest = wire.content_hash(1, 1, b"", data.encode())
        event = await socket.event(attach["handle"])
        equal(event["content_hash"], f"{digest:016x}", f"hash of {data[:40]}")
    other = await check.session(protocol=BINARY, device="raw")
    page = (await other.binary("FETCH", "Fetch", {"log": log, "backward": True, "limit": 1}, "PAGE"))["page"]
    equal(page.rows[0].body, b"[" * 32 + b"]" * 32, "its bytes in binary")


async def duplicates(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    ident = socket.new_id()
    first = await socket.send(log, "once", client_message_id=ident)
    for sender in (socket, await check.session()):
        again = await sender.send(log, "once", client_message_id=ident)
        equal(again.get("duplicate"), True, "the duplicate flag")
        equal({**again, "id": 0, "duplicate": 0}, {**first, "id": 0, "duplicate": 0}, "the first answer again")
        with refused("id_reused", "client_message_id"):
            await sender.send(log, "twice", client_message_id=ident)
        with refused("id_reused", "client_message_id"):
            await sender.send(log, "once", client_message_id=ident, silent=True)
    with refused("clock_skew", "client_message_id"):
        await socket.send(log, "x", client_message_id=socket.new_id(ahead_ms=120_000))
    with refused("invalid_field", "client_message_id"):
        await socket.send(log, "x", client_message_id=str(uuid.uuid4()))


async def sends_in_flight_keep_their_order(check):
    writer, reader = await check.session(), await check.another()
    log, _ = await check.conversation(writer, members=[OTHER])
    attach = await reader.subscribe(log, tail=True)
    futures = []
    for begin in range(0, 500, 20):
        lines = []
        for n in range(begin, begin + 20):
            line, future = writer.line("SEND", {"log": log, "client_message_id": writer.new_id(), "dseq": n + 1, "text": str(n)})
            lines.append(line)
            futures.append(future)
        await writer.write("\n".join(lines))
    acks = [await writer.answer(future, "ACK", 30) for future in futures]
    seqs = [int(ack["position"].split("-")[1]) for ack in acks]
    equal(seqs, list(range(seqs[0], seqs[0] + 500)), "positions of 500 sends")
    events, after = [], None
    while len(events) < 500:
        frame = await reader.delivery(attach["handle"])
        if frame["op"] == "BEHIND":
            attach = await reader.subscribe(log, after=f"{attach['epoch']}-{after}")
            events.extend(await owed(reader, log, attach))
        else:
            events.append(frame)
        after = events[-1]["seq"] if events else attach["live_from"] - 1
    equal([(event["seq"], event["text"]) for event in events], [(seqs[n], str(n)) for n in range(500)], "what another reads")


async def owed(socket, log, attach):
    """The rows that an ATTACH owes: inlined, or fetched."""
    begin, end = attach.get("replay_from", 0), attach.get("live_from", 0)
    if attach.get("inlined"):
        return [await socket.event(attach["handle"]) for _ in range(begin, end)]
    rows = []
    while begin < end:
        page = await socket.request("FETCH", "PAGE", log=log, **{"from": begin}, to=end)
        rows, begin = rows + page["rows"], page["next"] or end
    return rows


async def dseq(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    await socket.send(log, "5", dseq=5)
    with refused("out_of_order", "dseq"):
        await socket.send(log, "7", dseq=7)
    await socket.send(log, "6", dseq=6)
    await socket.send(log, "7", dseq=7)


async def subscribe_from_each_start(check):
    socket = await check.session()
    log, acks = await check.conversation(socket, 5)
    seqs, epoch = [ack["seq"] for ack in acks], acks[0]["position"].split("-")[0]
    for start, expected in (
        ({"tail": True}, []),
        ({"last": 3}, seqs[2:]),
        ({"last": 0}, []),
        ({"last": 100_000}, list(range(1, seqs[-1] + 1))),
        ({"after": "0-0"}, list(range(1, seqs[-1] + 1))),
        ({"after": acks[1]["position"]}, seqs[2:]),
        ({"after": acks[-1]["position"]}, []),
    ):
        reader = await check.session()
        attach = await reader.subscribe(log, **start)
        equal((attach["head"], attach["floor"], attach["head_msgno"]), (seqs[-1], 1, 5), "head, floor and head_msgno")
        equal(attach.get("reset"), None, "reset")
        equal([row["seq"] for row in await owed(reader, log, attach)], expected, f"rows of {start}")
        live = await socket.send(log, "live")
        equal((await reader.event(attach["handle"]))["seq"], live["seq"], "the live event")
        log, acks = await check.conversation(socket, 5)
        seqs = [ack["seq"] for ack in acks]
    for position in (f"{int(epoch) + 1}-{seqs[0]}", f"{epoch}-{seqs[-1] + 100}"):
        reader = await check.session()
        attach = await reader.subscribe(log, after=position)
        equal((attach["reset"], attach["replay_from"]), ("epoch_changed", attach["floor"]), f"reset after {position}")
    with refused("invalid_field", "from"):
        await socket.subscribe(log)
    with refused("not_found"):
        await socket.subscribe("c:gateway-check-nowhere", tail=True)


async def a_large_deficit_is_fetched(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    for n in range(200):
        line, future = socket.line("SEND", {"log": log, "client_message_id": socket.new_id(), "text": "x" * 500})
        await socket.write(line)
    await socket.answer(future, "ACK")
    reader = await check.session()
    attach = await reader.subscribe(log, after="0-0")
    expect(not attach.get("inlined"), "200 rows are not inlined")
    rows = await owed(reader, log, attach)
    equal([row["seq"] for row in rows], list(range(1, 202)), "what is owed")


async def pages(check):
    socket = await check.session()
    log, acks = await check.conversation(socket, 10)
    seqs = [ack["seq"] for ack in acks]
    rows, begin = [], seqs[0]
    while begin:
        page = await socket.request("FETCH", "PAGE", log=log, **{"from": begin}, limit=3)
        rows, begin = rows + page["rows"], page["next"]
    equal([row["seq"] for row in rows], seqs, "ten rows forward, three a page")
    rows, end = [], seqs[-1] + 1
    while end:
        page = await socket.request("FETCH", "PAGE", log=log, **{"from": seqs[0]}, to=end, limit=3, backward=True)
        rows, end = rows + page["rows"], page["next"]
    equal([row["seq"] for row in rows], seqs[::-1], "ten rows backward, three a page")
    page = await socket.request("FETCH", "MESSAGES_PAGE", log=log, view="messages", limit=4, backward=True)
    equal([one["row"]["seq"] for one in page["messages"]], seqs[:-5:-1], "four messages backward")
    equal(page["head"], seqs[-1], "head")
    page = await socket.request("FETCH", "PAGE", log=log, **{"from": seqs[-1] + 5}, to=seqs[-1] + 9)
    equal((page["rows"], page["next"]), ([], 0), "a range behind the head")


async def changes_to_messages(check):
    socket, other = await check.session(), await check.another()
    log, acks = await check.conversation(socket, 3, members=[OTHER])
    about = [{"seq": ack["seq"], "event_id": ack["event_id"]} for ack in acks]
    reply = await other.send(log, "indeed", reply_to=about[0])
    edit = await socket.send(log, "edited", kind="message.edit", relates_to=about[0])
    await other.send(log, kind="reaction", relates_to={**about[0], "key": "👍"})
    await socket.send(log, kind="reaction", relates_to={**about[0], "key": "👍"})
    await other.send(log, kind="reaction", relates_to={**about[0], "key": "+1"})
    await other.send(log, kind="reaction", relates_to={**about[0], "key": "+1", "remove": True})
    pin = await other.send(log, kind="pin", relates_to=about[1])
    redact = await socket.send(log, kind="message.redact", relates_to=about[2])
    page = await socket.request("FETCH", "MESSAGES_PAGE", log=log, view="messages")
    views = {one["row"]["seq"]: one for one in page["messages"]}
    first, second, third, answer = (views[seq] for seq in (*(one["seq"] for one in about), reply["seq"]))
    state = first["state"]
    equal((first["row"]["text"], state["edit"]["text"], state["edit"]["seq"]), ("row 0", "edited", edit["seq"]), "the edit")
    equal(state["edits"], [edit["seq"]], "positions of edits")
    [thumbs] = state["reactions"]
    equal((thumbs["key"], thumbs["count"], thumbs["mine"], sorted(thumbs["users"])), ("👍", 2, True, sorted([USER, OTHER])),
          "the reactions")
    equal((second["state"]["pinned"]["seq"], second["state"]["pinned"]["user"]), (pin["seq"], OTHER), "the pin")
    equal((third["row"].get("text"), third["row"]["redacted"]), (None, True), "the redacted row")
    equal(third["state"]["redacted"]["seq"], redact["seq"], "the redaction")
    equal((answer["reply"]["text"], answer["reply"]["sender"]), ("edited", USER), "the reply's preview")
    with refused("forbidden"):
        await other.send(log, "mine", kind="message.edit", relates_to=about[0])
    with refused("invalid_relation"):
        await socket.send(log, "late", kind="message.edit", relates_to=about[2])
    with refused("not_found"):
        await socket.send(log, "x", kind="message.edit", relates_to={**about[0], "event_id": about[1]["event_id"]})


async def cursors(check):
    writer, mover = await check.session(), await check.another()
    log, acks = await check.conversation(writer, 3, members=[OTHER])
    attach = await writer.subscribe(log, tail=True)
    await mover.request("CURSOR", log=log, delivered=acks[2]["seq"], read=acks[1]["seq"])
    told = await writer.told("CURSORS")
    equal((told["handle"], told["user"], told["delivered"], told["read"], told["read_msgno"]),
          (attach["handle"], OTHER, acks[2]["seq"], acks[1]["seq"], 2), "the cursor")
    attach = await (await check.session()).subscribe(log, tail=True)
    positions = {one["user"]: one.get("read") for one in attach["cursors"]}
    equal((positions[OTHER], positions[USER]), (acks[1]["seq"], acks[2]["seq"]), "cursors in ATTACH")
    with refused("invalid_field"):
        await mover.request("CURSOR", log=log, read=acks[2]["seq"] + 100)


async def signals(check):
    writer, reader, other = await check.session(), await check.session(), await check.another()
    log, _ = await check.conversation(writer, members=[OTHER])
    await writer.subscribe(log, tail=True)
    attached = [(await one.subscribe(log, tail=True), one) for one in (reader, other)]
    await writer.write(json.dumps({"op": "SIGNAL", "log": log, "kind": "typing", "data": "AQ"}))
    for attach, one in attached:
        told = await one.told("SIGNALED")
        equal((told["handle"], told["user"], told["kind"], told["data"], told["ttl_ms"]),
              (attach["handle"], USER, "typing", "AQ", 6000), "the signal")
    for bad in ({"log": "nonsense", "kind": "typing"}, {"log": log, "kind": 7}, {"log": log, "more": 1},
                {"log": log, "kind": "x", "data": "A" * 2000}, {"log": "c:nowhere", "kind": "typing"}):
        await writer.write(json.dumps({"op": "SIGNAL", **bad}))
    await asyncio.sleep(0.3)
    expect(writer.state.empty(), "one's own signal came back")
    await writer.send(log, "a bad signal has no answer")
    equal((writer.last_error, writer.others), (None, []), "answers to signals")


async def presence(check):
    user = check.name("present")
    watcher, other = await check.session(), await check.session(user=user)
    await check.conversation(watcher, members=[user])
    await other.request("PRESENCE_SET", status="online", text="at tea")
    await watcher.request("PRESENCE_SUBSCRIBE", users=[user, "gateway-check-nobody"])
    told = {one["user"]: one for one in [await watcher.told("PRESENCE"), await watcher.told("PRESENCE")]}
    equal((told[user]["status"], told[user]["text"]), ("online", "at tea"), "how the user is")
    equal(told["gateway-check-nobody"].get("status"), None, "how nobody is")
    await other.request("PRESENCE_SET", status="away", text="back soon")
    told = await watcher.told("PRESENCE")
    equal((told["status"], told["text"]), ("away", "back soon"), "the change")
    with refused("limit_exceeded"):
        await watcher.request("PRESENCE_SUBSCRIBE", users=[f"u{n}" for n in range(65)])


async def head_of_what_is_followed(check):
    writer = await check.another()
    follower = await check.session(user=check.name("follower"), follow_mine=True, capabilities=["follow"])
    equal(follower.welcome.get("capabilities"), ["follow"], "capabilities")
    log, _ = await check.conversation(writer, members=[follower.welcome["user"]])
    for n in range(50):
        ack = await writer.send(log, f"news {n}")
        if not follower.state.empty():
            break
        await asyncio.sleep(0.1)
    while True:
        told = await follower.told("HEAD")
        equal(told["log"], log, "the log")
        if told.get("last", {}).get("text") == f"news {n}":
            break
    equal((told["seq"], told["msgno"], told["last"]["sender"]), (ack["seq"], ack["msgno"], OTHER), "the digest")


async def several_lines_in_a_message(check):
    socket = await check.raw()
    hello, welcome = socket.line("HELLO", {"versions": [1], "token": await check.token()})
    name = check.name()
    create, made = socket.line("CONVERSATION_CREATE", {"conversation": name})
    send, acked = socket.line("SEND", {"log": f"c:{name}", "client_message_id": new_id(), "text": "one"})
    get, got = socket.line("CONVERSATION_GET", {"conversation": name})
    await socket.write("\n".join([hello, create, get]))
    equal((await socket.answer(welcome, "WELCOME"))["user"], USER, "user")
    expect((await socket.answer(made))["created"], "created")
    equal((await socket.answer(got))["to"], "CONVERSATION_GET", "to")
    await socket.write(f"{send}\n")
    await socket.answer(acked, "ACK")


async def unsubscribe(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    attach = await socket.subscribe(log, tail=True)
    await socket.request("UNSUBSCRIBE", handle=attach["handle"])
    detach = await socket.delivery(attach["handle"])
    equal((detach["op"], detach.get("reason"), detach.get("seq")), ("DETACH", None, None), "what ends it")
    await socket.send(log, "unheard")
    await socket.silent(attach["handle"], 0.2)
    await socket.request("UNSUBSCRIBE", handle=attach["handle"])
    again = await socket.subscribe(log, last=1)
    equal([row["text"] for row in await owed(socket, log, again)], ["unheard"], "the last row")


async def a_removed_member_gets_its_removal_and_nothing_more(check):
    owner, gone, stays = await check.session(), await check.another(), await check.session(user="stays")
    log, _ = await check.conversation(owner, 2, members=[OTHER, "stays"])
    attach, kept = await gone.subscribe(log, tail=True), await stays.subscribe(log, tail=True)
    await owner.send(log, "all together")
    await owner.request("MEMBER_REMOVE", conversation=log[2:], user=OTHER)
    secret = await owner.send(log, "among ourselves")
    await gone.event(attach["handle"])
    removal = await gone.event(attach["handle"])
    equal((removal["kind"], removal["body"]["change"], removal["body"]["members"][0]["user"]), ("member", "removed", OTHER),
          "the removal")
    detach = await gone.delivery(attach["handle"])
    equal((detach["op"], detach["reason"], detach["seq"]), ("DETACH", "removed", removal["seq"]), "what ends it")
    await gone.silent(attach["handle"])
    expect(gone.state.empty(), "state of a conversation that the user was removed from")
    for _ in range(3):
        event = await stays.event(kept["handle"])
    equal(event["seq"], secret["seq"], "what who stays gets")
    for op, members in (("SEND", {"log": log, "client_message_id": gone.new_id(), "text": "x"}), ("FETCH", {"log": log}),
                        ("SUBSCRIBE", {"log": log, "tail": True}), ("CONVERSATION_GET", {"conversation": log[2:]})):
        with refused("removed"):
            await gone.request(op, **members)
    try:
        await gone.request("FETCH", log=log)
    except Exception as refusal:
        equal(refusal.error["removed_at"], removal["seq"], "removed_at")


async def auth(check):
    socket = await check.session()
    newer = await check.tokens.make(USER)
    answer = await socket.request("AUTH", token=newer)
    equal(answer["to"], "AUTH", "to")
    expect(answer["expires_at_ms"] > socket.welcome["server_time_ms"], "the new token expires later than now")
    with refused("token_invalid"):
        await socket.request("AUTH", token="a.b.c")
    with refused("token_mismatch"):
        await socket.request("AUTH", token=await check.token(OTHER))
    await check.conversation(socket)


async def a_session_ends_with_its_token(check):
    socket = await check.raw()
    await socket.hello(await check.tokens.make(USER, "--lifetime", "2"), device="short")
    await check.conversation(socket)
    left = (socket.welcome["expires_at_ms"] - socket.welcome["server_time_ms"]) / 1000
    if left > 40:
        raise Skip(f"the session lives for {left:.0f} s")
    await check.closes(socket, 4102, 2002, left + 5)


async def auth_moves_the_end(check):
    socket = await check.raw()
    await socket.hello(await check.tokens.make(USER, "--lifetime", "2"), device="longer")
    left = (socket.welcome["expires_at_ms"] - socket.welcome["server_time_ms"]) / 1000
    if left > 10:
        raise Skip(f"the session lives for {left:.0f} s")
    await socket.request("AUTH", token=await check.token())
    await asyncio.sleep(left + 0.5)
    await check.conversation(socket)


async def a_newer_socket_of_the_device_replaces_the_older(check):
    older = await check.session("twice")
    newer = await check.session("twice")
    await check.closes(older, 4273, 5003)
    await check.conversation(newer)
    binary = await check.session("twice", protocol=BINARY)
    await check.closes(newer, 4273, 5003)
    instance = binary.instance
    fourth = await check.raw()
    await fourth.hello(await check.token(), device="fourth", sender_instance=instance, attempt=5)
    late = await check.raw()
    try:
        await late.hello(await check.token(), device="fourth", sender_instance=instance, attempt=4)
    except Exception as refusal:
        equal(getattr(refusal, "code", None), "replaced", "the late HELLO of an older connection")
    await check.closes(late, 4273, 5003)
    await check.conversation(fourth)


async def bye(check):
    socket = await check.session()
    await socket.request("BYE")
    await check.closes(socket, 1000)
    equal(socket.last_error, None, "the ERROR with id 0")
    binary = await check.session(protocol=BINARY)
    await binary.binary("BYE", "Bye", {})
    await check.closes(binary, 1000)


async def a_close_frame_ends_the_session(check):
    socket = await check.session("closing")
    await socket.ws.close(1000)
    equal(await socket.close_code(), 1000, "close code")


async def resume(check):
    writer = await check.session()
    log, _ = await check.conversation(writer)
    phone = await check.session("phone")
    first = phone.welcome
    attach = await phone.subscribe(log, tail=True)
    ident = phone.new_id()
    await phone.send(log, "before", client_message_id=ident)
    last = await phone.event(attach["handle"])
    phone.ws.transport.abort()
    missed = [await writer.send(log, f"missed {n}") for n in range(5)]
    phone = await check.session("phone", resume_token=first["resume_token"], attempt=2)
    equal((phone.welcome.get("resumed"), phone.welcome["session_id"]), (True, first["session_id"]), "the session")
    again = await phone.send(log, "before", client_message_id=ident)
    equal((again["seq"], again["duplicate"]), (last["seq"], True), "an old send again")
    attach = await phone.subscribe(log, after=f"{attach['epoch']}-{last['seq']}")
    rows = await owed(phone, log, attach)
    rows.append(await writer.send(log, "after") and await phone.event(attach["handle"]))
    equal([row["text"] for row in rows], [f"missed {n}" for n in range(5)] + ["after"], "no gap and no repetition")
    equal(rows[0]["seq"], missed[0]["seq"], "the first row")
    other = await check.session("laptop", resume_token=first["resume_token"])
    equal(other.welcome.get("resumed"), None, "the token on another device")
    broken = await check.session("phone", resume_token=base64.urlsafe_b64encode(b"nonsense").decode().rstrip("="))
    equal(broken.welcome.get("resumed"), None, "a token that nobody sealed")


async def batch(check):
    socket = await check.session(capabilities=["batch"])
    if "batch" not in socket.welcome.get("capabilities", []):
        raise Skip("not offered by this broker")
    log, _ = await check.conversation(socket)
    records = [{"log": log, "client_message_id": socket.new_id(), "text": str(n)} for n in range(3)]
    for duplicate in (None, True):
        results = (await socket.request("SEND_BATCH", "BATCH_ACK", records=records))["results"]
        equal([one.get("duplicate") for one in results], [duplicate] * 3, "duplicate flags")
        seqs = [int(one["position"].split("-")[1]) for one in results]
        equal(seqs, list(range(seqs[0], seqs[0] + 3)), "positions")


async def conversations(check):
    owner, other = await check.session(), await check.another()
    log, _ = await check.conversation(owner, join_policy="open")
    ident = log[2:]
    attach = await owner.subscribe(log, tail=True)
    joined = await other.request("JOIN", conversation=ident)
    equal({one["user"]: one.get("role") for one in joined["members"]}, {USER: "owner", OTHER: None}, "members")
    await owner.request("MEMBER_SET_ROLE", conversation=ident, user=OTHER, role="admin")
    await other.request("CONVERSATION_UPDATE", conversation=ident, title="Tea", history="joined")
    await other.request("MEMBER_ADD", conversation=ident, members=[{"user": "carol"}])
    await other.request("LEAVE", conversation=ident)
    got = await owner.request("CONVERSATION_GET", conversation=ident)
    equal((got["title"], got["history"], got["join_policy"]), ("Tea", "joined", "open"), "properties")
    deleted = await owner.request("CONVERSATION_DELETE", conversation=ident)
    equal(deleted.get("deleted"), True, "deleted")
    told = []
    for _ in range(6):
        event = await owner.event(attach["handle"])
        told.append((event["kind"], event["body"].get("change", "")))
    equal(told, [("member", "joined"), ("member", "role"), ("conversation", "updated"), ("member", ""), ("member", "left"),
                 ("conversation", "deleted")], "events")
    detach = await owner.delivery(attach["handle"])
    equal((detach["op"], detach["reason"]), ("DETACH", "deleted"), "what ends it")
    with refused("not_found"):
        await owner.request("CONVERSATION_GET", conversation=ident)


async def what_is_ones_own(check):
    user = check.name("own")
    owner, own = await check.session(), await check.session(user=user)
    inbox = await own.subscribe(f"u:{user}", tail=True)
    log, acks = await check.conversation(owner, 2, members=[user])
    added = await own.event(inbox["handle"])
    equal((added["kind"], added["body"]["conversation"]), ("conversation.added", log[2:]), "the inbox")
    await own.request("PREFERENCES", conversation=log[2:], pinned=True)
    await own.request("HIDE", log=log, event_id=acks[0]["event_id"], seq=acks[0]["seq"])
    await own.request("BLOCK", user="gateway-check-eve", blocked=True)
    kinds = [(await own.event(inbox["handle"]))["kind"] for _ in range(3)]
    equal(kinds, ["preferences", "hide", "block"], "events of the inbox")
    synced = await own.request("SYNC")
    [entry] = synced["entries"]
    equal((entry["log"], entry["pinned"], entry["hidden"], entry["head_msgno"], entry["last"]["text"]),
          (log, True, [acks[0]["seq"]], 2, "row 1"), "SYNC")
    equal(synced["blocked"], ["gateway-check-eve"], "whom the user blocked")
    page = await own.request("FETCH", "MESSAGES_PAGE", log=log, view="messages")
    equal([one["row"]["seq"] for one in page["messages"]], [acks[1]["seq"]], "messages without the hidden one")


async def revoke(check):
    user = check.name("revoked")
    socket, second = await check.session(user=user), await check.session(user=user)
    with refused("forbidden"):
        await socket.request("REVOKE", user=OTHER)
    try:
        await socket.request("REVOKE", user=user)
    except Closed:
        pass  # its own session may end before the answer
    await check.closes(second, 4103, 2003)
    await check.closes(socket, 4103, 2003)


async def the_same_conversation_in_binary(check):
    text, binary = await check.session(), await check.session(user=OTHER, protocol=BINARY)
    log, _ = await check.conversation(text, 2, members=[OTHER])
    attach = await binary.binary("SUBSCRIBE", "Subscribe", {"log": log, "last": 1}, "ATTACH")
    for _ in range(attach["live_from"] - attach["replay_from"]):
        equal((await binary.event(attach["handle"]))["row"].body, b"row 1", "the row inlined")
    mine = await text.subscribe(log, tail=True)
    ident = uuid.UUID(binary.new_id())
    ack = (await binary.binary("SEND", None, wire.send(log, "grüß".encode(), client_message_id=ident), "ACK"))["ack"]
    row, event = (await binary.event(attach["handle"]))["row"], await text.event(mine["handle"])
    equal((row.seq, row.body.decode(), row.sender), (ack.seq, "grüß", OTHER), "the row")
    equal((event["seq"], event["text"], event["sender"]), (ack.seq, "grüß", OTHER), "the event")
    equal((event["event_id"], event["client_message_id"]), (str(ack.event_id), str(ident)), "its ids")
    equal((event["content_hash"], event["time_ms"]), (f"{row.content_hash:016x}", row.time_ms), "hash and time")
    sent = await text.send(log, data={"a": 1})
    row = (await binary.event(attach["handle"]))["row"]
    equal((row.seq, row.content_type, row.body), (sent["seq"], 1, b'{"a": 1}'), "data as bytes")
    await text.event(mine["handle"])
    page = (await binary.binary("FETCH", "Fetch", {"log": log}, "PAGE"))["page"]
    rows = (await text.request("FETCH", "PAGE", log=log))["rows"]
    equal([(row.seq, str(row.event_id)) for row in page.rows], [(row["seq"], row["event_id"]) for row in rows], "pages")
    await binary.write(wire.frame("SIGNAL", 0, wire.encode("Signal", {"log": log, "kind": "typing"})))
    equal((await text.told("SIGNALED"))["user"], OTHER, "a signal")
    await binary.binary("CURSOR", "Cursor", {"log": log, "read": sent["seq"]})
    equal((await text.told("CURSORS"))["read"], sent["seq"], "a cursor")
    lines = [binary.asked("SEND", n) for n in (1001, 1002)]
    frames = [wire.frame("SEND", n, wire.send(log, b"%d" % n, client_message_id=uuid.UUID(binary.new_id()))) for n in (1001, 1002)]
    await binary.write(b"".join(frames))
    seqs = [(await binary.answer(future, "ACK"))["ack"].seq for future in lines]
    equal(seqs, [sent["seq"] + 1, sent["seq"] + 2], "two frames in a message")
    first = await text.event(mine["handle"])
    equal(first["text"], "1001", "the next event")
    await text.event(mine["handle"])
    await binary.binary("UNSUBSCRIBE", "Unsubscribe", {"handle": attach["handle"]})


CHECKS = [
    hello, the_token_may_come_in_the_upgrade, the_newest_common_version_is_chosen, send, every_content, data_keeps_its_bytes,
    duplicates, sends_in_flight_keep_their_order, dseq, subscribe_from_each_start, a_large_deficit_is_fetched, pages,
    changes_to_messages, cursors, signals, presence, head_of_what_is_followed, several_lines_in_a_message, unsubscribe,
    a_removed_member_gets_its_removal_and_nothing_more, auth, a_session_ends_with_its_token, auth_moves_the_end,
    a_newer_socket_of_the_device_replaces_the_older, bye, a_close_frame_ends_the_session, resume, batch, conversations,
    what_is_ones_own, revoke, the_same_conversation_in_binary,
]
