"""Holds a running gateway to its own OpenAPI document.

    check.py --gateway http://127.0.0.1:7080 --token-command "antiphon token --user {user}"

The document has to be a valid one. Then every operation is asked for one good thing, and for many that schemathesis makes
up, fitting the document and not, on ids that exist and on others. No answer may be a 5xx, or have a status, type or body
that the document does not have; nine operations of ten have to succeed once. The same seed makes the same requests.
"""

import argparse
import collections
import signal
import sys

import hypothesis
import requests
import schemathesis
from hypothesis import strategies
from openapi_spec_validator import validate
from schemathesis import checks as rules
from schemathesis.specs.openapi import checks as openapi_rules

from fixture import Fixture

SEED, SECONDS_MAX = 20_240_229, 90
EXAMPLES = {schemathesis.GenerationMode.POSITIVE: 50, schemathesis.GenerationMode.NEGATIVE: 30}
SUCCESSES_MIN = 0.9
STREAM = "log_stream"
CHECKS = [rules.not_a_server_error, openapi_rules.status_code_conformance, openapi_rules.content_type_conformance,
          openapi_rules.response_schema_conformance]


class Findings:
    """What broke a rule, once for each operation and rule; and which operations succeeded."""

    def __init__(self):
        self.broken, self.statuses = {}, collections.defaultdict(collections.Counter)

    def note(self, operation, rule, what):
        self.broken.setdefault((operation, rule), what)

    def judge(self, operation, case, response):
        self.statuses[operation][response.status_code] += 1
        for check in CHECKS:
            try:
                case.validate_response(response, checks=[check])
            except (AssertionError, schemathesis.errors.SchemathesisError, BaseExceptionGroup) as broken:
                request = f"{response.request.method} {response.request.path_url} {str(response.request.body)[:200]}"
                self.note(operation, check.__name__, f"{request}\n    {response.status_code} {response.text[:300]}\n    {reason(broken)}")

    def succeeded(self):
        return {name for name, statuses in self.statuses.items() if any(status < 300 for status in statuses)}

    def report(self, operations):
        reached = self.succeeded()
        for name in operations:
            counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses[name].items()))
            print(f"{'ok  ' if not [1 for one, _ in self.broken if one == name] else 'FAIL'}  openapi: {name}: {counts}")
        for (name, rule), what in self.broken.items():
            print(f"{name} breaks {rule}:\n    {what}")
        print(f"{len(reached)} of {len(operations)} operations succeeded; {len(self.broken)} rules broken")
        return not self.broken and len(reached) >= SUCCESSES_MIN * len(operations)


def reason(broken):
    found = broken.exceptions if isinstance(broken, BaseExceptionGroup) else [broken]
    return " | ".join(f"{type(one).__name__}: {str(one)[:400]}".replace("\n", " ") for one in found)


def good(operation, name, fixture):
    """The one request that has to succeed."""
    names = {parameter.name for parameter in operation.path_parameters}
    path = {key: value for key, value in fixture.path(name).items() if key in names}
    body = fixture.body(name)
    return operation.Case(path_parameters=path, **({"body": body, "media_type": "application/json"} if body is not None else {}))


def ask(case, name, fixture, findings):
    # What schemathesis put in place of a token is not what is looked at here.
    response = case.call(base_url=fixture.url, headers=fixture.headers(name), timeout=20)
    findings.judge(name, case, response)


def made_up(operation, name, mode, fixture, findings):
    """Requests of schemathesis; two of three name what exists."""
    existing = fixture.path(name)

    @hypothesis.seed(SEED)
    @hypothesis.settings(max_examples=EXAMPLES[mode], database=None, deadline=None, phases=[hypothesis.Phase.generate],
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), names=strategies.integers(0, 2))
    def run(case, names):
        if names:
            for key in case.path_parameters or {}:
                case.path_parameters[key] = existing[key]
        ask(case, name, fixture, findings)

    run()


def streams(document, fixture, findings):
    """A stream has no end, so only its head is looked at."""
    declared = document["paths"]["/api/v1/logs/{log}/stream"]["get"]["responses"]
    for log, query, headers in (
        ("c:api-log_stream", {}, {}), ("c:api-log_stream", {"after": "0-0"}, {}), ("c:nowhere", {}, {}), ("nothing", {}, {}),
        ("c:api-log_stream", {"after": "x"}, {}), ("c:api-log_stream", {"ticket": "x"}, {}), ("c:a", {"more": "1"}, {}),
        ("c:api-log_stream", {}, {"Last-Event-ID": "9-9"}), ("c:api-log_stream", {}, {"Authorization": "Bearer x"}),
    ):
        with requests.get(f"{fixture.url}/api/v1/logs/{log}/stream", params=query, stream=True, timeout=20,
                          headers={**fixture.headers(STREAM), **headers}) as response:
            findings.statuses[STREAM][response.status_code] += 1
            types = declared.get(str(response.status_code), {}).get("content", {})
            if response.headers.get("content-type") not in types:
                findings.note(STREAM, "status_and_type", f"{response.url}: {response.status_code} {response.headers}")


def out_of_time(*_):
    print(f"not done after {SECONDS_MAX} s", file=sys.stderr)
    sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", required=True, help="http://HOST:PORT of the gateway")
    parser.add_argument("--token-command", required=True, help="command that prints an access token for {user}")
    parsed = parser.parse_args()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(SECONDS_MAX)
    url = parsed.gateway.rstrip("/")
    document = requests.get(f"{url}/api/v1/openapi.json", timeout=10).json()
    validate(document)
    fixture, findings, operations = Fixture(url, parsed.token_command), Findings(), []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        name = operation.definition.raw["operationId"]
        operations.append(name)
        fixture.prepare(name)
        if name == STREAM:
            streams(document, fixture, findings)
            continue
        ask(good(operation, name, fixture), name, fixture, findings)
        for mode in EXAMPLES:
            made_up(operation, name, mode, fixture, findings)
    return 0 if findings.report(operations) else 1


if __name__ == "__main__":
    sys.exit(main())
