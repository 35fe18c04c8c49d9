"""What every check has: the gateway under test, tokens, sockets that are closed at its end, and a bystander."""

import asyncio
import contextlib
import itertools
import os
import shlex

from client import BINARY, JSON, Refused, Socket, Wrong

USER, OTHER = "gateway-check", "gateway-check-other"
RUN = os.urandom(3).hex()
numbers = itertools.count(1)


class Skip(Exception):
    """The check does not apply here; says why."""


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
        expect("outcome" not in refusal.error, "a refusal that says that its outcome is unknown")
        return
    raise Wrong(f"accepted, {code} was expected")


class Tokens:
    """Access tokens by a command; one for each user is kept."""

    def __init__(self, command):
        self.command, self.kept = command, {}

    async def make(self, user, *options):
        words = [word.replace("{user}", user) for word in shlex.split(self.command)]
        process = await asyncio.create_subprocess_exec(*words, *options, stdout=asyncio.subprocess.PIPE,
                                                       stderr=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        if process.returncode:
            if options:
                raise Skip(f"the token command does not take {' '.join(options)}")
            raise RuntimeError(f"the token command ended with {process.returncode}")
        return out.decode().strip()

    async def of(self, user):
        if user not in self.kept:
            self.kept[user] = await self.make(user)
        return self.kept[user]


class Check:
    """The gateway under test, and the sockets that one check has open."""

    def __init__(self, url, tokens, stack):
        self.url, self.tokens, self.stack = url, tokens, stack
        self.sockets = []

    async def token(self, user=USER):
        return await self.tokens.of(user)

    def name(self, what="c"):
        """An id that nobody used before."""
        return f"{what}-{RUN}-{next(numbers)}"

    async def raw(self, **options):
        socket = await Socket.open(self.url, **options)
        self.sockets.append(socket)
        self.stack.push_async_callback(socket.close)
        return socket

    async def session(self, device=None, user=USER, protocol=JSON, **hello):
        socket = await self.raw(protocol=protocol)
        await socket.hello(await self.token(user), device=device, **hello)
        return socket

    async def another(self, **options):
        return await self.session(user=OTHER, **options)

    async def conversation(self, socket, rows=0, members=(), **properties):
        """A new conversation of this session's user, with so many messages; and its log's name."""
        create = {"conversation": self.name(), "title": "gateway-check", **properties}
        if members:
            create["members"] = [{"user": user} for user in members]
        made = await socket.request("CONVERSATION_CREATE", **create)
        expect(made.get("created"), "a new conversation says that it was created")
        log = f"c:{made['conversation']}"
        return log, [await socket.send(log, f"row {n}") for n in range(rows)]

    async def acquainted(self, *users):
        """A session of each of these new users, whose inboxes know of the conversation that they have in common.

        An inbox learns of a conversation after it was made: there is no order between logs."""
        sockets = [await self.session(user=user) for user in users]
        log, _ = await self.conversation(sockets[0], members=users[1:])
        for socket, user in zip(sockets, users):
            inbox = await socket.subscribe(f"u:{user}", after="0-0")
            event = await socket.event(inbox["handle"])
            equal((event["kind"], event["body"]["conversation"]), ("conversation.added", log[2:]), "the inbox")
        return sockets

    async def closes(self, socket, code, number=None, seconds=10):
        """ERROR without an id, then the close code."""
        equal(await socket.close_code(seconds), code, "close code")
        if number is not None:
            expect(socket.last_error is not None, "no ERROR with id 0 before the close")
            equal(socket.last_error["number"], number, "number of the ERROR with id 0")

    def faults(self):
        for socket in self.sockets:
            expect(socket.fault is None, f"the gateway wrote what it may not: {socket.fault}")


class Bystander:
    """Two users who chat while others misbehave."""

    def __init__(self, writer, reader, log, handle):
        self.writer, self.reader, self.log, self.handle, self.count = writer, reader, log, handle, 0

    @classmethod
    async def begin(cls, check):
        writer, reader = await check.session(user="bystander"), await check.session(user="bystander-2")
        log, _ = await check.conversation(writer, members=["bystander-2"])
        attach = await reader.subscribe(log, tail=True)
        return cls(writer, reader, log, attach["handle"])

    async def chats(self):
        self.count += 1
        text = f"still here {self.count}"
        ack = await self.writer.send(self.log, text)
        event = await self.reader.event(self.handle)
        equal((event["seq"], event["text"]), (ack["seq"], text), "what a bystander gets")


def with_bystander(check):
    async def run(context):
        bystander = await Bystander.begin(context)
        await bystander.chats()
        found = await check(context, bystander)
        await bystander.chats()
        return found
    run.__name__ = check.__name__
    run.seconds = getattr(check, "seconds", 60)
    return run


def close_code(number):
    """SPEC section 14."""
    within = number % 1000
    return {1: 4000, 2: 4100, 3: 4200, 4: 4240, 5: 4270}[number // 1000] + within


async def goes_on(socket):
    """The session is still there."""
    if socket.protocol == BINARY:
        await socket.binary("SYNC", "Sync", {})
    else:
        await socket.request("SYNC", limit=1)
