"""Conformance check of a running gateway, by clients that share no code with it and follow protocol/SPEC.md.

    check.py --gateway http://127.0.0.1:7080 --token-command "antiphon token --user {user}" [--wire] [group ...]

Prints one line per check, then `N passed, N failed`. `--wire` holds the JSON form to protocol/vectors, without a broker.
"""

import argparse
import asyncio
import contextlib
import inspect
import sys
import time

import checks_bad
import checks_hostile
import checks_http
import checks_log
import checks_refusals
import checks_socket
import checks_stream
import test_jsonform
import wire
from client import Closed, Refused, Wrong
from common import Check, Skip, Tokens
from jsonvalue import Fault

CHECK_SECONDS = 60
GROUPS = {"socket": checks_socket.CHECKS + checks_log.CHECKS, "bad": checks_bad.CHECKS + checks_hostile.CHECKS,
          "http": checks_http.CHECKS + checks_stream.CHECKS + checks_refusals.CHECKS}
FAULTS = (Wrong, Refused, Closed, Fault, wire.Malformed, OSError, asyncio.TimeoutError, LookupError, ValueError, TypeError,
          AttributeError, RuntimeError)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wire", action="store_true", help="hold the JSON form to the vectors")
    parser.add_argument("--gateway", help="http://HOST:PORT of the gateway")
    parser.add_argument("--token-command", help="command that prints an access token for {user}")
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all, if none is named")
    parsed = parser.parse_args()
    if parsed.gateway and "{user}" not in (parsed.token_command or ""):
        parser.error("--token-command with {user} is needed")
    if not (parsed.wire or parsed.gateway):
        parser.error("nothing to do: --wire or --gateway")
    unknown = set(parsed.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no group is called {', '.join(sorted(unknown))}")
    return parsed


class Results:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    async def run(self, group, check, *arguments):
        """One check, one line. A check may be a plain function that returns what is wrong."""
        name, begin = f"{group}: {check.__name__.replace('_', ' ')}", time.monotonic()
        try:
            found = check(*arguments)
            if inspect.isawaitable(found):
                found = await asyncio.wait_for(found, getattr(check, "seconds", CHECK_SECONDS))
            if found is not None:
                raise Wrong(found)
        except Skip as reason:
            self.skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
        except FAULTS as reason:
            self.failed += 1
            print(f"FAIL  {name}: {type(reason).__name__}: {reason}", flush=True)
        else:
            self.passed += 1
            took = time.monotonic() - begin
            print(f"ok    {name}" + (f" ({took:.0f} s)" if took >= 2 else ""), flush=True)


async def on_gateway(check, url, tokens):
    """Runs a check with sockets of its own; what the gateway wrote on them has to be as specified."""
    async with contextlib.AsyncExitStack() as stack:
        context = Check(url, tokens, stack)
        found = await check(context)
        context.faults()
        return found


async def main():
    parsed, results = arguments(), Results()
    if parsed.wire:
        for check in test_jsonform.CHECKS:
            await results.run("wire", check)
    if parsed.gateway:
        tokens = Tokens(parsed.token_command)
        for group in parsed.groups or GROUPS:
            for check in GROUPS[group]:
                async def bound(check=check):
                    return await on_gateway(check, parsed.gateway.rstrip("/"), tokens)
                bound.__name__ = check.__name__
                bound.seconds = getattr(check, "seconds", CHECK_SECONDS)
                await results.run(group, bound)
    print(f"{results.passed} passed, {results.failed} failed" + (f", {results.skipped} skipped" if results.skipped else ""))
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
