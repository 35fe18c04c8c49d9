"""What HTTP refuses, and the headers that browsers need. A function takes a `Check`, and raises."""

from checks_http import conversation_of, status_of, user_of
from client import Wrong
from common import OTHER, equal, expect
from httpclient import Http

FOREIGN = "https://evil.example"


async def every_status(check):
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    events = f"/logs/{log}/events"
    for status, code, method, path, body in (
        (400, "malformed", "POST", events, b"{"),
        (400, "malformed", "POST", events, b"[]"),
        (400, "malformed", "POST", events, b"\xff"),
        (400, "malformed", "POST", events, {"text": 7}),
        (400, "malformed", "POST", events, b'{"text":"a","text":"b"}'),
        (400, "malformed", "POST", events, b'{"text":"\\ud800"}'),
        (400, "malformed", "POST", events, b'{"data":' + b"[" * 33 + b"]" * 33 + b"}"),
        (400, "unknown_fields", "POST", events, {"tetx": "a"}),
        (400, "unknown_fields", "GET", f"{events}?form=1", b""),
        (400, "unknown_fields", "GET", events, {"from": 1}),
        (400, "malformed", "GET", f"{events}?from=-1", b""),
        (400, "malformed", "GET", f"{events}?from=1&from=2", b""),
        (400, "malformed", "GET", f"{events}?from=9007199254740992", b""),
        (400, "malformed", "POST", events, {"log": log, "text": "the log is in the path"}),
        (400, "malformed", "GET", f"{events}?limit=01", b""),
        (400, "invalid_field", "GET", "/logs/lobby/events", b""),
        (400, "invalid_field", "POST", events, {"kind": "member"}),
        (400, "invalid_field", "POST", "/conversations", {"retention_s": 59}),
        (400, "limit_exceeded", "POST", events, {"text": "x" * 65537}),
        (400, "invalid_relation", "POST", events, {"kind": "pin", "relates_to": {"seq": 500, "event_id": "0" * 8 + "-0000" * 3 +
                                                                                "-" + "0" * 12}}),
        (404, "not_found", "GET", "/conversations/gateway-check-nowhere", b""),
        (404, "not_found", "GET", "/nothing/here", b""),
        (404, "not_found", "POST", "/logs/c:gateway-check-nowhere/events", {"text": "x"}),
    ):
        try:
            await status_of(status, http.ask(method, path, body), code)
        except Wrong as wrong:
            raise Wrong(f"{method} {path} {str(body)[:60]}: {wrong}") from None


async def what_is_too_long(check):
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    await status_of(413, http.ask("POST", f"/logs/{log}/events", b'{"text":"' + b"x" * (1 << 20) + b'"}'), "frame_too_large")
    await status_of(413, http.ask("POST", "/tickets", b'{"log":"' + b"x" * (1 << 20) + b'"}'), "frame_too_large")


async def who_has_no_token(check):
    good = await check.token()
    nobody = Http(check.url)
    for header in (None, "", "Bearer", "Bearer ", "Basic dTpw", f"bearer{good}", "Bearer a.b.c", f"Bearer {good}x",
                   f"Bearer {good}, Bearer {good}", "Bearer " + "x" * 9000):
        options = {} if header is None else {"Authorization": header}
        await status_of(401, nobody.ask("GET", "/conversations", **options), "token_invalid")
    await status_of(401, nobody.ask("GET", f"/conversations?token={good}"), "token_invalid")


async def removed_is_gone(check):
    owner, gone = await user_of(check), await user_of(check, OTHER)
    log, _ = await conversation_of(check, owner, members=[{"user": OTHER}])
    await owner.ask("DELETE", f"/conversations/{log[2:]}/members/{OTHER}")
    found = await status_of(410, gone.get(f"/logs/{log}/events"), "removed")
    equal(found["removed_at"], 2, "removed_at")


async def other_methods(check):
    http = await user_of(check)
    for method in ("PUT", "DELETE", "TRACE", "BREW"):
        answer = await http.raw(method, "/conversations")
        equal(answer.status, 405, f"status of {method}")
        equal({name.strip() for name in answer.headers["allow"].split(",")} - {"HEAD"}, {"GET", "POST"}, "Allow")


async def names_in_the_path_are_decoded_once(check):
    http = await user_of(check)
    log, _ = await conversation_of(check, http)
    page = await http.get(f"/logs/c%3A{log[2:]}/events")
    expect(page["rows"], "a name with an escape")
    for wrong in ("c%253Ax", "c:a%2Fb", "c:a%22,%22op%22:%22BYE", "c:%00", "c:%0A", "c:" + "x" * 65):
        await status_of(400, http.get(f"/logs/{wrong}/events"), "invalid_field")
    for path in ("/logs/c:%FF/events", "/logs/c:%FF/stream", "/users/%FF/presence"):
        await status_of(400, http.get(path), "malformed")


async def headers_of_every_answer(check):
    http = await user_of(check)
    for path, below in (("/conversations", "/api/v1"), ("/nothing", "/api/v1"), ("/healthz", ""), ("/openapi.json", "/api/v1")):
        answer = await http.raw("GET", path, below=below)
        for name, value in (("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("vary", "origin"),
                            ("cache-control", "no-store"), ("content-security-policy", "default-src 'none'")):
            equal(answer.headers.get(name), value, f"{name} of {path}")


async def foreign_pages_get_no_leave(check):
    http = await user_of(check)
    for origin in (FOREIGN, "null", f"http://{http.parts.netloc}.evil.example"):
        answer = await http.raw("GET", "/conversations", headers={"Origin": origin})
        expect(not [name for name in answer.headers if name.startswith("access-control-")], f"CORS for {origin}")
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        answer = await Http(check.url).raw("OPTIONS", "/conversations", headers=asked)
        expect(not [name for name in answer.headers if name.startswith("access-control-")], f"a preflight of {origin}")


async def ready_and_well(check):
    http = Http(check.url)
    for path in ("/healthz", "/readyz"):
        equal((await http.raw("GET", path, below="")).status, 200, f"status of {path}")


CHECKS = [
    every_status, what_is_too_long, who_has_no_token, removed_is_gone, other_methods, names_in_the_path_are_decoded_once,
    headers_of_every_answer, foreign_pages_get_no_leave, ready_and_well,
]
