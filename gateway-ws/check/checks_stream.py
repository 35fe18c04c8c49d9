"""Server-sent events and tickets: section 16 of protocol/SPEC.md. A function takes a `Check`, and raises."""

from checks_http import conversation_of, status_of, user_of
from client import Refused
from common import OTHER, USER, equal, expect
from httpclient import Http


async def a_stream_follows_a_log(check):
    writer, reader = await user_of(check), await user_of(check, OTHER)
    log, _ = await conversation_of(check, writer, 2, members=[{"user": OTHER}])
    stream = await reader.follow(log)
    ack = await writer.ask("POST", f"/logs/{log}/events", {"text": "line\nbreaks \u2028 and 😀"}, (201,))
    [(position, row)] = await stream.rows(1)
    equal((position, row["text"]), (ack["position"], "line\nbreaks \u2028 and 😀"), "what comes")
    equal((row["sender"], row["event_id"]), (USER, ack["event_id"]), "its row")
    page = await reader.get(f"/logs/{log}/events", **{"from": row["seq"]})
    equal(row, page["rows"][0], "the row of a page")
    stream.close()


async def it_resumes_after_the_last_event(check):
    writer = await user_of(check)
    log, acks = await conversation_of(check, writer, 5)
    stream = await writer.follow(log, f"?after={acks[1]['position']}")
    found = await stream.rows(2)
    equal([row["text"] for _, row in found], ["row 2", "row 3"], "rows after a position")
    stream.close()
    await writer.ask("POST", f"/logs/{log}/events", {"text": "missed"}, (201,))
    # The header is of a reader that comes back: it is newer than the query.
    stream = await writer.follow(log, f"?after={acks[0]['position']}", Last_Event_ID=found[-1][0])
    equal([row["text"] for _, row in await stream.rows(2)], ["row 4", "missed"], "what was missed")
    await writer.ask("POST", f"/logs/{log}/events", {"text": "live"}, (201,))
    equal([row["text"] for _, row in await stream.rows(1)], ["live"], "what comes then")
    stream.close()


async def a_long_log_comes_whole(check):
    """More than a subscription inlines, and some of it while the stream runs."""
    socket, http = await check.session(), await user_of(check)
    log, _ = await check.conversation(socket)

    async def send(count):
        futures = []
        for _ in range(count):
            line, future = socket.line("SEND", {"log": log, "client_message_id": socket.new_id(), "text": "x" * 700})
            await socket.write(line)
            futures.append(future)
        for future in futures:
            await socket.answer(future, "ACK")

    await send(400)
    stream = await http.follow(log, "?after=0-0")
    first = await stream.rows(1)
    await send(400)
    rows = first + await stream.rows(800)
    equal([row["seq"] for _, row in rows], list(range(1, 802)), "positions")
    stream.close()


async def a_history_that_was_replaced_is_told(check):
    http = await user_of(check)
    log, acks = await conversation_of(check, http, 3)
    epoch, last = acks[-1]["position"].split("-")
    for position in (f"{int(epoch) + 1}-1", f"{epoch}-{int(last) + 100}"):
        stream = await http.follow(log, Last_Event_ID=position)
        kind, _, data = await stream.next()
        equal((kind, data["floor"]), ("reset", 1), f"what comes first after {position}")
        equal(data["reason"], "epoch_changed", "the reason, as the JSON form names it")
        equal([row["seq"] for _, row in await stream.rows(int(last))], list(range(1, int(last) + 1)), "the rows")
        stream.close()


async def what_is_no_position(check):
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    for wrong in ("x", "1", "1-", "-1", "1-x", "4294967296-1", "1-18446744073709551616", "1-9007199254740992",
                  "1-18446744073709551615", "1-01", "%2B1-1"):
        await status_of(400, http.follow(log, f"?after={wrong}"), "invalid_field")
        await status_of(400, http.follow(log, Last_Event_ID=wrong.replace("%2B", "+")), "invalid_field")
    await status_of(400, http.follow(log, "?before=1-1"), "unknown_fields")


async def who_may_not_read_gets_a_status(check):
    owner, stranger = await user_of(check), await user_of(check, check.name("stranger"))
    log, _ = await conversation_of(check, owner, members=[{"user": OTHER}])
    await status_of(404, stranger.follow(log), "not_found")
    await status_of(401, Http(check.url).follow(log), "token_invalid")
    await status_of(401, Http(check.url, "a.b.c").follow(log), "token_invalid")
    await owner.ask("DELETE", f"/conversations/{log[2:]}/members/{OTHER}")
    await status_of(410, (await user_of(check, OTHER)).follow(log), "removed")


async def the_end_is_told(check):
    owner, gone = await user_of(check), await user_of(check, OTHER)
    log, _ = await conversation_of(check, owner, members=[{"user": OTHER}])
    stream = await gone.follow(log)
    await owner.ask("DELETE", f"/conversations/{log[2:]}/members/{OTHER}")
    await owner.ask("POST", f"/logs/{log}/events", {"text": "among ourselves"}, (201,))
    [(_, row)] = await stream.rows(1)
    equal((row["kind"], row["body"]["change"]), ("member", "removed"), "the removal")
    kind, _, data = await stream.next()
    equal((kind, data["code"], await stream.next()), ("end", "removed", None), "what comes after it")
    short = Http(check.url, await check.tokens.make(USER, "--lifetime", "2"))
    stream = await short.follow(log)
    kind, _, data = await stream.next(40)
    equal((kind, data["code"], await stream.next()), ("end", "token_expired", None), "the end of a token")


async def a_ticket_reads_one_log(check):
    owner, nobody = await user_of(check), Http(check.url)
    log, acks = await conversation_of(check, owner, 2)
    other, _ = await conversation_of(check, owner)
    ticket = (await owner.ask("POST", "/tickets", {"log": log}, (201,)))["ticket"]
    stream = await nobody.follow(log, f"?ticket={ticket}&after=0-0")
    expect(len(await stream.rows(2)) == 2, "rows")
    stream.close()
    await status_of(403, nobody.follow(other, f"?ticket={ticket}"), "forbidden")
    # It reads, and does nothing else.
    for method, path in (("POST", f"/logs/{log}/events"), ("GET", f"/logs/{log}/events"), ("GET", "/conversations")):
        body = {"text": "x"} if method == "POST" else b""
        await status_of(401, nobody.ask(method, f"{path}?ticket={ticket}", body), "token_invalid")
        await status_of(401, nobody.ask(method, path, body, Authorization=f"Bearer {ticket}"), "token_invalid")
    changed = ticket[:-2] + ("AA" if ticket[-2:] != "AA" else "BB")
    for wrong in (changed, ticket[:-1], "", "x", "%00", ticket + "AAAA"):
        await status_of(401, nobody.follow(log, f"?ticket={wrong}"), "token_invalid")
    for body in ({}, {"log": 7}, {"log": log, "more": 1}, b"", b"[]", b"{"):
        await status_of(400, owner.ask("POST", "/tickets", body))
    await status_of(401, nobody.ask("POST", "/tickets", {"log": log}), "token_invalid")


async def a_ticket_ends_with_its_token(check):
    user = check.name("ticket")
    own, owner = await user_of(check, user), await user_of(check)
    log, _ = await conversation_of(check, owner, members=[{"user": user}])
    ticket = (await own.ask("POST", "/tickets", {"log": log}, (201,)))["ticket"]
    stream = await Http(check.url).follow(log, f"?ticket={ticket}")
    try:
        await own.ask("POST", f"/users/{user}/revoke", statuses=(204,))
    except Refused as refusal:  # its own session may end before the answer
        equal(refusal.code, "token_revoked", "what may come in place of the answer")
    kind, _, data = await stream.next()
    equal((kind, data["code"]), ("end", "token_revoked"), "the end of the stream")
    await status_of(401, Http(check.url).follow(log, f"?ticket={ticket}"), "token_revoked")


CHECKS = [
    a_stream_follows_a_log, it_resumes_after_the_last_event, a_long_log_comes_whole, a_history_that_was_replaced_is_told,
    what_is_no_position, who_may_not_read_gets_a_status, the_end_is_told, a_ticket_reads_one_log, a_ticket_ends_with_its_token,
]
