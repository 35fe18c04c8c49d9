"""What sockets do on logs: sending, following, pages, changes to messages. A function takes a `Check`, and raises."""

import uuid

import wire
from client import BINARY
from common import OTHER, USER, Skip, equal, expect, refused


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
        ({"text": "p", "properties": {"k": "v", "ü": ""}},) * 2,
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


async def unsubscribe(check):
    socket = await check.session()
    log, _ = await check.conversation(socket)
    attach = await socket.subscribe(log, tail=True)
    await socket.request("UNSUBSCRIBE", handle=attach["handle"])
    detach = await socket.delivery(attach["handle"])
    equal((detach["op"], detach.get("reason"), detach.get("seq")), ("DETACH", None, None), "what ends it")
    await socket.send(log, "unheard")
    await socket.silent(attach["handle"])
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
    send, every_content, data_keeps_its_bytes, duplicates, sends_in_flight_keep_their_order, dseq,
    subscribe_from_each_start, a_large_deficit_is_fetched, pages, changes_to_messages, unsubscribe,
    a_removed_member_gets_its_removal_and_nothing_more, batch, the_same_conversation_in_binary,
]
