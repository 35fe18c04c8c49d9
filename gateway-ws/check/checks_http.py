"""What HTTP does: section 16 of protocol/SPEC.md. A function takes a `Check`, and raises."""

import asyncio
import json
import re
import uuid

from client import Refused, Wrong
from common import OTHER, USER, equal, expect, refused
from httpclient import Http, read_answer
from jsonform import uuid8
from jsonvalue import PROTOCOL

TABLE = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE) \| (/\S+) \| (\w+) \|$", re.M)


async def user_of(check, user=USER):
    return Http(check.url, await check.token(user))


async def service_of(check, *options):
    return Http(check.url, await check.tokens.make("gateway-check-service", "--service", *options))


async def conversation_of(check, http, rows=0, **properties):
    made = await http.ask("POST", "/conversations", {"conversation": check.name(), **properties}, (201,))
    log = f"c:{made['conversation']}"
    return log, [await http.ask("POST", f"/logs/{log}/events", {"text": f"row {n}"}, (201,)) for n in range(rows)]


async def status_of(expected, work, code=None):
    """The work is refused with this status and code."""
    try:
        await work
    except Refused as refusal:
        found = refusal.error
        equal((found.get("status"), found.get("code")), (expected, code or found.get("code")), "status and code")
        expect(found.get("number") and found.get("code"), f"the body of a refusal is {found}")
        return found
    raise Wrong(f"accepted, {expected} was expected")


async def conversations(check):
    owner, other = await user_of(check), await user_of(check, OTHER)
    name = check.name()
    created = {"conversation": name, "title": "Tee & Grüße", "join_policy": "open"}
    made = await owner.ask("POST", "/conversations", created, (201,))
    equal((made["title"], made["created"]), ("Tee & Grüße", True), "what was made")
    again = await owner.ask("POST", "/conversations", created, (200,))
    equal(again.get("created"), None, "created again")
    await status_of(409, other.ask("POST", "/conversations", {"conversation": name}), "already_exists")
    path = f"/conversations/{name}"
    equal((await other.ask("POST", f"{path}/join"))["members"][1]["user"], OTHER, "who joined")
    await owner.ask("PUT", f"{path}/members/{OTHER}/role", {"role": "admin"}, (200,))
    changed = await other.ask("PATCH", path, {"title": "Tea"}, (200,))
    equal(changed["title"], "Tea", "the title")
    await other.ask("POST", f"{path}/members", {"members": [{"user": "carol"}, {"user": "dan", "role": "admin"}]}, (200,))
    await owner.ask("DELETE", f"{path}/members/carol", statuses=(200,))
    members = {one["user"]: one.get("role", "member") for one in (await owner.get(path))["members"]}
    equal(members, {USER: "owner", OTHER: "admin", "dan": "admin"}, "members")
    await owner.ask("PATCH", f"{path}/preferences", {"pinned": True}, (204,))
    entries = await listed(owner)
    equal((entries[f"c:{name}"]["pinned"], f"c:{name}" in await listed(other)), (True, True), "own conversations")
    equal((await owner.ask("DELETE", path, statuses=(200,)))["deleted"], True, "deleted")
    await status_of(404, owner.get(path), "not_found")


async def listed(http):
    """Own conversations, page by page."""
    found, after = {}, None
    while True:
        page = await http.get("/conversations", limit=20, **({"after": after} if after else {}))
        found.update({entry["log"]: entry for entry in page.get("entries", [])})
        after = page.get("next")
        if not after:
            return found


async def leave(check):
    owner, other = await user_of(check), await user_of(check, OTHER)
    log, _ = await conversation_of(check, owner, members=[{"user": OTHER}])
    await other.ask("POST", f"/conversations/{log[2:]}/leave", statuses=(204,))
    equal([one["user"] for one in (await owner.get(f"/conversations/{log[2:]}"))["members"]], [USER], "members")


async def sends_with_a_key_are_one(check):
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    path, key = f"/logs/{log}/events", "order 17/α"
    first = await http.ask("POST", path, {"text": "once"}, (201,), Idempotency_Key=key)
    again = await http.ask("POST", path, {"text": "once"}, (200,), Idempotency_Key=key)
    equal((again.pop("duplicate"), again), (True, first), "the answer again")
    [row] = (await http.get(path, **{"from": int(first["position"].split("-")[1])}))["rows"]
    equal(row["client_message_id"], str(uuid.UUID(bytes=uuid8(b"idempotency-key", key.encode()))), "its id")
    await status_of(409, http.ask("POST", path, {"text": "twice"}, Idempotency_Key=key), "id_reused")
    for wrong in ("", "x" * 256):
        await status_of(400, http.ask("POST", path, {"text": "x"}, Idempotency_Key=wrong), "invalid_field")
    await http.ask("POST", path, {"text": "x"}, (201,), Idempotency_Key="x" * 255)
    elsewhere, _ = await conversation_of(check, http)
    await http.ask("POST", f"/logs/{elsewhere}/events", {"text": "another log"}, (201,), Idempotency_Key=key)
    own = str(uuid.UUID(bytes=uuid8(b"of an application's own", check.name().encode())))
    for status in (201, 200):
        await http.ask("POST", path, {"client_message_id": own, "data": {"a": [1, None]}}, (status,))


async def a_service_acts_for_a_user(check):
    owner = await user_of(check)
    log, _ = await conversation_of(check, owner, members=[{"user": OTHER}])
    service, plain = await service_of(check, "--scope", "act_as"), await service_of(check)
    path, body = f"/logs/{log}/events", {"act_as": OTHER, "text": "by a back end"}
    await status_of(403, plain.ask("POST", path, body), "forbidden")
    await status_of(403, owner.ask("POST", path, body), "forbidden")
    ack = await service.ask("POST", path, body, (201,), Idempotency_Key="job-1")
    again = await service.ask("POST", path, body, (200,), Idempotency_Key="job-1")
    equal(again["event_id"], ack["event_id"], "the event")
    [row] = (await owner.get(path, backward="true", limit=1))["rows"]
    equal((row["sender"], row["via"], row["text"]), (OTHER, "gateway-check-service", "by a back end"), "the row")
    await owner.ask("DELETE", f"/conversations/{log[2:]}/members/{OTHER}")
    await status_of(410, service.ask("POST", path, body), "removed")


async def history(check):
    http, other = await user_of(check), await user_of(check, OTHER)
    log, acks = await conversation_of(check, http, 7, members=[{"user": OTHER}])
    first, rows, begin = int(acks[0]["position"].split("-")[1]), [], 1
    while begin:
        page = await other.get(f"/logs/{log}/events", **{"from": begin, "limit": 3})
        rows, begin = rows + page["rows"], page["next"]
    equal([row["seq"] for row in rows], list(range(1, first + 7)), "rows, page by page")
    page = await other.get(f"/logs/{log}/events", backward="true", limit=2, to=first + 3)
    equal([row["text"] for row in page["rows"]], ["row 2", "row 1"], "two rows backward")
    at_ms = next(row["time_ms"] for row in rows if row["seq"] == first + 3)
    since = [row["seq"] for row in rows if row["time_ms"] >= at_ms]
    page = await other.get(f"/logs/{log}/events", at_ms=at_ms)
    equal([row["seq"] for row in page["rows"]], since, "rows from a date on")
    page = await other.get(f"/logs/{log}/events", at_ms=at_ms, backward="true")
    equal([row["seq"] for row in page["rows"]], list(range(since[0] - 1, 0, -1)), "rows before a date")
    about = {"seq": first, "event_id": acks[0]["event_id"]}
    await http.ask("POST", f"/logs/{log}/events", {"kind": "message.edit", "relates_to": about, "text": "edited"}, (201,))
    await other.ask("POST", f"/logs/{log}/events", {"kind": "reaction", "relates_to": {**about, "key": "👍"}}, (201,))
    await other.ask("POST", f"/logs/{log}/hides", {"seq": first + 1, "event_id": acks[1]["event_id"]}, (204,))
    page = await other.get(f"/logs/{log}/messages", limit=2)
    equal([one["row"]["seq"] for one in page["messages"]], [first, first + 2][:len(page["messages"])], "messages")
    state = page["messages"][0]["state"]
    equal((state["edit"]["text"], state["reactions"][0]["mine"]), ("edited", True), "what became of the first")
    await other.ask("PUT", f"/logs/{log}/cursor", {"read": first + 3}, (204,))
    equal((await listed(other))[log]["read_msgno"], 4, "what was read")
    await status_of(400, other.ask("PUT", f"/logs/{log}/cursor", {"read": first + 300}), "invalid_field")


async def signals(check):
    http, socket = await user_of(check), await check.another()
    log, _ = await conversation_of(check, http, members=[{"user": OTHER}])
    attach = await socket.subscribe(log, tail=True)
    await http.ask("POST", f"/logs/{log}/signals", {"kind": "typing", "data": "AQ"}, (202,))
    told = await socket.told("SIGNALED")
    equal((told["handle"], told["user"], told["data"]), (attach["handle"], USER, "AQ"), "the signal")


async def presence(check):
    user, watcher = check.name("present"), check.name("watcher")
    await check.acquainted(watcher, user)
    own, http = await user_of(check, user), await user_of(check, watcher)
    await own.ask("PUT", "/presence", {"status": "away", "text": "at tea"}, (204,))
    equal(await http.get(f"/users/{user}/presence"), {"user": user, "status": "away", "text": "at tea"}, "presence")
    found = await http.get("/users/gateway-check-nobody/presence")
    equal(found, {"user": "gateway-check-nobody", "status": "offline", "text": ""}, "presence of nobody")


async def block(check):
    own, other = await user_of(check, check.name("blocks")), check.name("blocked")
    direct = await own.ask("POST", "/conversations", {"kind": "direct", "members": [{"user": other}]}, (201,))
    path = f"/logs/c:{direct['conversation']}/events"
    for blocked, status in ((True, 403), (False, 201)):
        await own.ask("PUT", f"/users/{other}/block", {"blocked": blocked}, (204,))
        # There is no order between the inbox and the conversation: sent until it is as it has to be, or the check's time ends.
        while (answer := await own.raw("POST", path, {"text": "x"})).status != status:
            expect(answer.status in (201, 403), f"status {answer.status}")
        expect(blocked is False or answer.json()["code"] == "blocked", "the code")


async def revoke(check):
    user, admin = check.name("revoked"), await service_of(check, "--scope", "admin:write")
    own = await user_of(check, user)
    log, _ = await conversation_of(check, own)
    stream = await own.follow(log)
    await status_of(403, (await user_of(check)).ask("POST", f"/users/{user}/revoke"), "forbidden")
    await admin.ask("POST", f"/users/{user}/revoke", statuses=(204,))
    kind, _, data = await stream.next()
    equal((kind, data["code"], await stream.next()), ("end", "token_revoked", None), "the end of the stream")
    await status_of(401, own.get("/conversations"), "token_revoked")
    with refused("token_revoked"):
        await (await check.raw()).hello(own.token)


async def imports(check):
    service = await service_of(check, "--scope", "act_as", "--grant", "c:*=read,manage")
    owner = await user_of(check)
    log, _ = await conversation_of(check, owner)
    records = [{"log": log, "time_ms": 1_234_567_890_000 + n, "external_id": f"{log}/{n}", "act_as": "long-gone", "text": str(n)}
               for n in range(3)]
    for duplicate in (None, True):
        results = (await service.ask("POST", "/import", {"records": records}, (200,)))["results"]
        equal([one.get("duplicate") for one in results], [duplicate] * 3, "duplicate flags")
    rows = (await owner.get(f"/logs/{log}/events", backward="true", limit=3))["rows"]
    equal([(row["text"], row["sender"], row["imported"], row["time_ms"]) for row in rows[::-1]],
          [(str(n), "long-gone", True, 1_234_567_890_000 + n) for n in range(3)], "the rows")
    [refusal] = (await owner.ask("POST", "/import", {"records": records[:1]}, (200,)))["results"]
    expect(refusal["error"]["code"] in ("forbidden", "not_found"), f"an import by a user: {refusal}")


async def requests_on_one_connection(check):
    """In flight together, answered in their order."""
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    reader, writer = await http.connect()
    bodies = [json.dumps({"text": str(n)}).encode() for n in range(50)]
    writer.write(b"".join(http.head("POST", f"/api/v1/logs/{log}/events", body) + body for body in bodies))
    acks = [(await asyncio.wait_for(read_answer(reader, "POST"), 10)).wanted(201) for _ in bodies]
    writer.close()
    seqs = [int(ack["position"].split("-")[1]) for ack in acks]
    equal(seqs, list(range(seqs[0], seqs[0] + 50)), "positions")
    many = await asyncio.gather(*(http.ask("POST", f"/logs/{log}/events", {"text": "x"}, (201,)) for _ in range(50)))
    equal(len({ack["event_id"] for ack in many}), 50, "events of requests at once")


async def the_document_names_every_request(check):
    document = (await Http(check.url).raw("GET", "/openapi.json")).wanted(200)
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    specified = {(method, f"/api/v1{path}") for method, path, _ in TABLE.findall((PROTOCOL / "SPEC.md").read_text())}
    expect(len(specified) > 20, "the specification has its table")
    equal(told - specified, {("GET", "/api/v1/users/{user}/presence"), ("POST", "/api/v1/tickets"),
                             ("GET", "/api/v1/logs/{log}/stream")}, "what the table does not have")
    equal(specified - told, set(), "what the document does not have")


CHECKS = [
    conversations, leave, sends_with_a_key_are_one, a_service_acts_for_a_user, history, signals, presence, block, revoke,
    imports, requests_on_one_connection, the_document_names_every_request,
]
