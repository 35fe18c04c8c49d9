"""Conformance check of a running broker, by a client that shares no code with it and follows protocol/SPEC.md.

    check.py --address 127.0.0.1:4433 --fingerprint HEX --token-command "antiphon token --user {user}" [group ...]

Prints one line per check, then `N passed, N failed`. The token's user is an ordinary one; the token names no device,
because the checks use several. A check that needs a second user applies only if the token command takes `{user}`.
"""

import argparse
import asyncio
import contextlib
import pathlib
import shlex
import sys

import wire
from checks import CHECKS, USER, Check, Wrong
from client import Closed, Refused

CHECK_SECONDS = 30
FAULTS = (Wrong, Refused, Closed, wire.Malformed, OSError, asyncio.TimeoutError, KeyError, ValueError, IndexError,
          RuntimeError)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="HOST:PORT of the broker's QUIC listener")
    parser.add_argument("--fingerprint", required=True, help="SHA-256 of the broker's certificate, in hexadecimal")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--token", type=pathlib.Path, help="file with an access token")
    token.add_argument("--token-command", help="command that prints an access token for {user}")
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(CHECKS)}; all, if none is named")
    parsed = parser.parse_args()
    unknown = set(parsed.groups) - set(CHECKS)
    if unknown:
        parser.error(f"no group is called {', '.join(sorted(unknown))}")
    host, _, port = parsed.address.rpartition(":")
    if not host or not port.isdigit():
        parser.error("--address is HOST:PORT")
    parsed.host, parsed.port = host.strip("[]"), int(port)
    parsed.fingerprint = parsed.fingerprint.replace(":", "").lower()
    return parsed


def token_source(parsed):
    """A function from a user to an access token; None if there is none for that user."""
    async def from_command(user):
        if user != USER and "{user}" not in parsed.token_command:
            return None
        command = [word.replace("{user}", user) for word in shlex.split(parsed.token_command)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the token command ended with {process.returncode}")
        return out.decode().strip()

    async def from_file(user):
        return parsed.token.read_text().strip() if user == USER else None

    return from_file if parsed.token else from_command


async def run(check, parsed):
    """None if the broker does what it has to; else why not. A check may say why it does not apply."""
    async with contextlib.AsyncExitStack() as stack:
        target = (parsed.host, parsed.port, parsed.fingerprint)
        return await check(Check(*target, token_source(parsed), stack))


async def main():
    parsed = arguments()
    passed = failed = inapplicable = 0
    for group in parsed.groups or CHECKS:
        for check in CHECKS[group]:
            name = f"{group}: {check.__name__.replace('_', ' ')}"
            try:
                note = await asyncio.wait_for(run(check, parsed), CHECK_SECONDS)
                passed, inapplicable = passed + (note is None), inapplicable + (note is not None)
                print(f"{'ok  ' if note is None else 'skip'}  {name}" + (f": {note}" if note else ""), flush=True)
            except FAULTS as reason:
                failed += 1
                print(f"FAIL  {name}: {type(reason).__name__}: {reason}", flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {inapplicable} not offered" if inapplicable else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
