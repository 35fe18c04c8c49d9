"""What sockets do: sessions, tokens, conversations, state. A function takes a `Check`, and raises."""

import asyncio
import base64
import contextlib
import json
import uuid

from client import BINARY, Closed, new_id
from checks_log import owed
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
    await writer.send(log, "a bad signal has no answer")
    # One's own signals do not come back: the first that comes is another's.
    await other.write(json.dumps({"op": "SIGNAL", "log": log, "kind": "typing"}))
    equal((await writer.told("SIGNALED"))["user"], OTHER, "whose signal comes first")
    equal((writer.last_error, writer.others), (None, []), "answers to signals")


async def presence(check):
    user = check.name("present")
    watcher, other = await check.acquainted(check.name("watcher"), user)
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
    # What came before the follower knew of its membership brings no HEAD.
    for n in range(10):
        ack = await writer.send(log, f"news {n}")
        with contextlib.suppress(asyncio.TimeoutError):
            told = await follower.told("HEAD", 1.5)
            while told.get("last", {}).get("text") != f"news {n}":
                told = await follower.told("HEAD", 1.5)
            break
    equal(told["log"], log, "the log")
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
    socket, other, token = await check.raw(), await check.raw(), await check.tokens.make(USER, "--lifetime", "2")
    await socket.hello(token, device="longer")
    await other.hello(token, device="not-longer")
    left = (socket.welcome["expires_at_ms"] - socket.welcome["server_time_ms"]) / 1000
    if left > 10:
        raise Skip(f"the session lives for {left:.0f} s")
    await socket.request("AUTH", token=await check.token())
    # Another session of the first token says when it is over.
    await check.closes(other, 4102, 2002, left + 5)
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


CHECKS = [
    hello, the_token_may_come_in_the_upgrade, the_newest_common_version_is_chosen, cursors, signals, presence,
    head_of_what_is_followed, several_lines_in_a_message, auth, a_session_ends_with_its_token, auth_moves_the_end,
    a_newer_socket_of_the_device_replaces_the_older, bye, a_close_frame_ends_the_session, resume, conversations,
    what_is_ones_own, revoke,
]
