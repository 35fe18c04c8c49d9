"""Bytes of the protocol, after protocol/SPEC.md: frames, rows, hot bodies, and Protobuf by hand.

Imports nothing of ours and generates nothing, so that it agrees with the broker only if both agree with the
specification.
"""

import hashlib
import struct
import uuid
from dataclasses import dataclass

ALPN = "antiphon/1"
HEADER = struct.Struct("<IBBHI")
FRAME_BYTES_MAX = 1 << 20
OPTIONAL = 1

FRAMES = {
    "HELLO": 0x01, "WELCOME": 0x02, "AUTH": 0x03, "BYE": 0x04, "GOAWAY": 0x05, "OPEN": 0x06, "OK": 0x07, "ERROR": 0x08,
    "RESUME": 0x09,
    "SUBSCRIBE": 0x10, "ATTACH": 0x11, "UNSUBSCRIBE": 0x12, "FETCH": 0x13, "PAGE": 0x14,
    "MESSAGES_PAGE": 0x15, "EVENT": 0x16, "SKIP": 0x17, "BEHIND": 0x18, "DETACH": 0x19, "CURSOR": 0x1A, "CURSORS": 0x1B,
    "HEAD": 0x1C, "SYNC": 0x1D,
    "SEND": 0x20, "ACK": 0x21, "SEND_BATCH": 0x22, "BATCH_ACK": 0x23, "HIDE": 0x24, "IMPORT": 0x25,
    "CONVERSATION_CREATE": 0x30, "CONVERSATION_GET": 0x31, "CONVERSATION_UPDATE": 0x33, "CONVERSATION_DELETE": 0x34,
    "MEMBER_ADD": 0x35, "MEMBER_REMOVE": 0x36, "MEMBER_SET_ROLE": 0x37, "JOIN": 0x38, "LEAVE": 0x39,
    "PREFERENCES": 0x3A, "BLOCK": 0x3B, "SIGNAL": 0x40, "SIGNALED": 0x41, "PRESENCE_SET": 0x42, "PRESENCE": 0x43,
    "PRESENCE_SUBSCRIBE": 0x44, "REVOKE": 0x50,
}
NAMES = {number: name for name, number in FRAMES.items()}

# Message -> field number -> (name, kind). Kinds: uint (also enumerations), bool, string, bytes, or another message;
# `*` = repeated, `?` = present or absent, whatever its value.
MESSAGES = {
    "Hello": {
        1: ("versions", "uint*"), 2: ("token", "string"), 3: ("device", "string"), 4: ("sender_instance", "bytes"),
        5: ("resume_token", "bytes"), 6: ("follow_mine", "bool"), 7: ("capabilities", "string*"),
        8: ("client", "string"), 9: ("attempt", "uint"), 10: ("background", "bool"),
    },
    "Welcome": {
        1: ("version", "uint"), 2: ("session_id", "bytes"), 3: ("resume_token", "bytes"), 4: ("resumed", "bool"),
        5: ("server_time_ms", "uint"), 6: ("user", "string"), 7: ("device", "string"),
        8: ("reconnect_jitter_ms", "uint"), 9: ("max_frame_bytes", "uint"), 10: ("max_body_bytes", "uint"),
        11: ("max_subscriptions", "uint"), 12: ("capabilities", "string*"), 13: ("expires_at_ms", "uint"),
    },
    "Auth": {1: ("token", "string")},
    "Authenticated": {1: ("expires_at_ms", "uint")},
    "Bye": {},
    "Goaway": {1: ("code", "uint"), 2: ("deadline_ms", "uint"), 3: ("jitter_ms", "uint")},
    "Resume": {1: ("jitter_ms", "uint")},
    "Error": {
        1: ("number", "uint"), 2: ("code", "string"), 3: ("outcome", "uint"), 4: ("retry_after_ms", "uint"),
        5: ("field", "string"), 6: ("message", "string"), 7: ("removed_at", "uint"),
    },
    "Position": {1: ("epoch", "uint"), 2: ("seq", "uint")},
    "Subscribe": {1: ("log", "string"), 2: ("after", "Position?"), 3: ("last", "uint?"), 4: ("tail", "bool?")},
    "Attach": {
        1: ("handle", "uint"), 2: ("log", "string"), 3: ("epoch", "uint"), 4: ("live_from", "uint"),
        5: ("replay_from", "uint"), 6: ("inlined", "bool"), 7: ("head", "uint"), 8: ("floor", "uint"),
        9: ("head_msgno", "uint"), 10: ("reset", "uint"), 11: ("cursors", "MemberCursor*"),
    },
    "Unsubscribe": {1: ("handle", "uint")},
    "Detach": {1: ("reason", "uint"), 2: ("seq", "uint")},
    "Fetch": {
        1: ("log", "string"), 2: ("from", "uint"), 3: ("to", "uint"), 4: ("limit", "uint"), 5: ("backward", "bool"),
        6: ("view", "uint"), 8: ("at_ms", "uint"),
    },
    "MessagesPage": {
        1: ("next", "uint"), 2: ("head", "uint"), 3: ("floor", "uint"), 4: ("epoch", "uint"),
        5: ("messages", "MessageView*"),
    },
    "MessageView": {1: ("row", "bytes"), 2: ("state", "MessageState?"), 3: ("reply", "ReplyPreview?")},
    "MessageState": {
        1: ("through", "uint"), 2: ("edit", "LatestEdit?"), 3: ("redacted", "Mark?"), 4: ("pinned", "Mark?"),
        5: ("reactions", "Reactions*"), 6: ("edits", "uint*"),
    },
    "LatestEdit": {
        1: ("seq", "uint"), 2: ("time_ms", "uint"), 3: ("content_type", "uint"), 4: ("envelope", "bytes"),
        5: ("body", "bytes"),
    },
    "Mark": {1: ("seq", "uint"), 2: ("time_ms", "uint"), 3: ("user", "string")},
    "Reactions": {1: ("key", "string"), 2: ("count", "uint"), 3: ("mine", "bool"), 4: ("users", "string*")},
    "ReplyPreview": {
        1: ("seq", "uint"), 2: ("event_id", "bytes"), 3: ("sender", "string"), 4: ("content_type", "uint"),
        5: ("body", "bytes"), 6: ("cut", "bool"), 7: ("redacted", "bool"), 8: ("through", "uint"),
    },
    "Cursor": {1: ("log", "string"), 2: ("delivered", "uint"), 3: ("read", "uint"), 4: ("act_as", "string")},
    "MemberCursor": {1: ("user", "string"), 2: ("delivered", "uint"), 3: ("read", "uint"), 4: ("read_msgno", "uint")},
    "Head": {
        1: ("log", "string"), 2: ("epoch", "uint"), 3: ("seq", "uint"), 4: ("msgno", "uint"),
        5: ("last", "LastMessage?"),
    },
    "LastMessage": {
        1: ("seq", "uint"), 2: ("time_ms", "uint"), 3: ("sender", "string"), 4: ("content_type", "uint"),
        5: ("body", "bytes"), 6: ("redacted", "bool"), 7: ("imported", "bool"),
    },
    "Member": {1: ("user", "string"), 2: ("role", "uint"), 3: ("joined_seq", "uint")},
    "ConversationCreate": {
        1: ("conversation", "string"), 2: ("kind", "uint"), 3: ("title", "string"), 4: ("members", "Member*"),
        5: ("join_policy", "uint"), 6: ("act_as", "string"), 7: ("retention_s", "uint"),
        8: ("history", "uint"),
    },
    "ConversationGet": {1: ("conversation", "string")},
    "Conversation": {
        1: ("conversation", "string"), 2: ("kind", "uint"), 3: ("title", "string"), 4: ("join_policy", "uint"),
        5: ("members", "Member*"), 6: ("head", "uint"), 7: ("head_msgno", "uint"), 8: ("created", "bool"),
        9: ("deleted", "bool"), 10: ("retention_s", "uint"), 11: ("history", "uint"),
    },
    "ConversationUpdate": {
        1: ("conversation", "string"), 2: ("title", "string?"), 3: ("join_policy", "uint?"), 4: ("retention_s", "uint?"),
        5: ("history", "uint?"),
    },
    "ConversationDelete": {1: ("conversation", "string")},
    "MemberAdd": {1: ("conversation", "string"), 2: ("members", "Member*"), 3: ("act_as", "string")},
    "MemberRemove": {1: ("conversation", "string"), 2: ("user", "string")},
    "MemberSetRole": {1: ("conversation", "string"), 2: ("user", "string"), 3: ("role", "uint")},
    "Join": {1: ("conversation", "string")},
    "Leave": {1: ("conversation", "string")},
    "MemberEvent": {1: ("change", "uint"), 2: ("members", "Member*")},
    "ConversationEvent": {
        1: ("change", "uint"), 2: ("kind", "uint"), 3: ("title", "string"), 4: ("join_policy", "uint"),
        5: ("members", "Member*"), 6: ("retention_s", "uint"), 7: ("history", "uint"),
    },
    "ConversationAdded": {1: ("conversation", "string"), 2: ("joined_seq", "uint"), 3: ("kind", "uint")},
    "ConversationRemoved": {1: ("conversation", "string"), 2: ("seq", "uint"), 3: ("reason", "uint")},
    "Preferences": {1: ("conversation", "string"), 2: ("pinned", "bool?"), 3: ("muted", "bool?")},
    "Block": {1: ("user", "string"), 2: ("blocked", "bool")},
    "Hide": {1: ("log", "string"), 2: ("event_id", "bytes"), 3: ("seq", "uint")},
    "Revoke": {1: ("user", "string")},
    "Revoked": {1: ("not_before_ms", "uint")},
    "Sync": {1: ("after", "string"), 2: ("limit", "uint")},
    "Synced": {1: ("entries", "SyncedLog*"), 2: ("next", "string"), 3: ("blocked", "string*")},
    "SyncedLog": {
        1: ("log", "string"), 2: ("pinned", "bool"), 3: ("muted", "bool"), 4: ("hidden", "uint*"), 5: ("error", "uint"),
        6: ("kind", "uint"), 7: ("title", "string"), 8: ("deleted", "bool"), 9: ("epoch", "uint"), 10: ("head", "uint"),
        11: ("head_msgno", "uint"), 12: ("time_ms", "uint"), 13: ("last", "LastMessage?"), 14: ("delivered", "uint"),
        15: ("read", "uint"), 16: ("read_msgno", "uint"),
    },
    "PresenceSet": {1: ("status", "uint"), 2: ("text", "string")},
    "PresenceSubscribe": {1: ("users", "string*")},
    "Presence": {1: ("user", "string"), 2: ("status", "uint"), 3: ("text", "string")},
    "Signal": {1: ("log", "string"), 2: ("kind", "string"), 3: ("data", "bytes"), 4: ("ttl_ms", "uint")},
    "Signaled": {
        1: ("handle", "uint"), 2: ("user", "string"), 3: ("kind", "string"), 4: ("data", "bytes"),
        5: ("ttl_ms", "uint"),
    },
    "BatchAck": {1: ("results", "BatchResult*")},
    "BatchResult": {
        1: ("position", "Position?"), 2: ("event_id", "bytes"), 3: ("msgno", "uint"), 4: ("time_ms", "uint"),
        5: ("duplicate", "bool"), 6: ("error", "Error?"),
    },
}


class Malformed(Exception):
    """Bytes that are not what the specification says."""


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data, at):
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a varint is cut off or too long")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _length_delimited(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def _encode_one(number, kind, value):
    if kind in ("uint", "bool"):
        return varint(number << 3) + varint(int(value))
    if kind == "string":
        return _length_delimited(number, value.encode())
    if kind == "bytes":
        return _length_delimited(number, value)
    return _length_delimited(number, encode(kind, value))


def encode(message, fields):
    """The canonical body of a message whose fields are a dict; defaults are left out unless presence counts."""
    out, left = b"", dict(fields)
    for number, (name, kind) in MESSAGES[message].items():
        value = left.pop(name, None)
        base = kind.rstrip("*?")
        if value is None:
            continue
        if kind == "uint*":
            out += _length_delimited(number, b"".join(varint(n) for n in value)) if value else b""
        elif kind.endswith("*"):
            out += b"".join(_encode_one(number, base, one) for one in value)
        elif kind.endswith("?") or value:
            out += _encode_one(number, base, value)
    if left:
        raise KeyError(f"{message} has no {', '.join(left)}")
    return out


def _read_value(data, at, wire_type):
    if wire_type == 0:
        return read_varint(data, at)
    if wire_type == 2:
        length, at = read_varint(data, at)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise Malformed(f"wire type {wire_type}")
    if at + length > len(data):
        raise Malformed("a field is cut off")
    return data[at : at + length], at + length


def _decode_one(kind, value):
    if kind == "uint":
        return value
    if kind == "bool":
        return bool(value)
    if kind == "string":
        return value.decode()
    return value if kind == "bytes" else decode(kind, value)


def decode(message, data):
    """A body as a dict of the fields that are there. Fields that this version does not know are ignored."""
    out, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = _read_value(data, at, tag & 7)
        name, kind = MESSAGES[message].get(tag >> 3, (None, ""))
        base = kind.rstrip("*?")
        if name is None:
            continue
        if isinstance(value, int) != (base in ("uint", "bool")) and kind != "uint*":
            raise Malformed(f"{message}.{name} has wire type {tag & 7}")
        if kind == "uint*":
            values, index = [], 0
            while not isinstance(value, int) and index < len(value):
                number, index = read_varint(value, index)
                values.append(number)
            out.setdefault(name, []).extend([value] if isinstance(value, int) else values)
        elif kind.endswith("*"):
            out.setdefault(name, []).append(_decode_one(base, value))
        else:
            out[name] = _decode_one(base, value)
    return out


def frame(name_or_number, ident, body=b"", flags=0):
    number = FRAMES.get(name_or_number, name_or_number)
    return HEADER.pack(len(body), number, flags, 0, ident) + body


class Frames:
    """Cuts one stream into (name, id, body)."""

    def __init__(self):
        self.buffer = bytearray()

    def push(self, data):
        self.buffer += data

    def __iter__(self):
        return self

    def __next__(self):
        while len(self.buffer) >= HEADER.size:
            length, number, flags, zero, ident = HEADER.unpack_from(self.buffer)
            if length + HEADER.size > FRAME_BYTES_MAX or zero:
                raise Malformed(f"header {bytes(self.buffer[:HEADER.size]).hex()}")
            if len(self.buffer) < HEADER.size + length:
                break
            body = bytes(self.buffer[HEADER.size : HEADER.size + length])
            del self.buffer[: HEADER.size + length]
            if number in NAMES:
                return NAMES[number], ident, body
            if not flags & OPTIONAL:
                raise Malformed(f"frame type {number:#04x}")
        raise StopIteration


ROW = struct.Struct("<QQQ16s16sQBBBBBBHI")


@dataclass(frozen=True)
class Row:
    seq: int
    msgno: int
    time_ms: int
    event_id: uuid.UUID
    client_message_id: uuid.UUID
    content_hash: int
    kind: int
    redacted: bool
    content_type: int
    sender: str
    via: str
    envelope: bytes
    body: bytes

    @staticmethod
    def first(data):
        """The row that `data` begins with, and its length."""
        if len(data) < ROW.size:
            raise Malformed("a row is cut off")
        (seq, msgno, time_ms, event, client, digest, kind, flags, content_type, sender_len, via_len, _, envelope_len,
         body_len) = ROW.unpack_from(data)
        parts, at = [], ROW.size
        for length in (sender_len, via_len, envelope_len, body_len):
            parts.append(bytes(data[at : at + length]))
            at += length
        if at > len(data):
            raise Malformed("a row is cut off")
        sender, via, envelope, body = parts
        row = Row(seq, msgno, time_ms, uuid.UUID(bytes=event), uuid.UUID(bytes=client), digest, kind, bool(flags & 1),
                  content_type, sender.decode("ascii"), via.decode("ascii"), envelope, body)
        return row, at

    @staticmethod
    def only(data):
        row, length = Row.first(data)
        if length != len(data):
            raise Malformed("bytes follow the row")
        return row


def content_hash(kind, content_type, envelope, body):
    content = bytes([kind, content_type]) + struct.pack("<I", len(envelope)) + envelope + body
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def log_key(tenant, log):
    kind, ident = log.split(":", 1)
    digest = hashlib.sha256(b"".join(part.encode() + b"\0" for part in (tenant, kind, ident))).digest()
    key = bytearray(digest[:16])
    key[6] = key[6] & 0x0F | 0x80
    key[8] = key[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(key))


def send(log, body, *, client_message_id, dseq=0, kind=1, content_type=0, act_as="", envelope=b""):
    """The body of a SEND, which is also a record of a SEND_BATCH."""
    fixed = struct.pack("<16sQBBBBHH", client_message_id.bytes, dseq, kind, content_type, len(log), len(act_as),
                        len(envelope), 0)
    return fixed + log.encode() + act_as.encode() + envelope + body


def send_batch(records):
    return b"".join(struct.pack("<I", len(record)) + record for record in records)


def imported(time_ms, record):
    """A record of an IMPORT, whose body is otherwise that of a SEND_BATCH."""
    return struct.pack("<Q", time_ms) + record


@dataclass(frozen=True)
class Ack:
    seq: int
    msgno: int
    time_ms: int
    event_id: uuid.UUID
    epoch: int
    duplicate: bool

    @staticmethod
    def read(body):
        seq, msgno, time_ms, event, epoch, flags = struct.unpack_from("<QQQ16sII", body)
        return Ack(seq, msgno, time_ms, uuid.UUID(bytes=event), epoch, bool(flags & 1))


@dataclass(frozen=True)
class Page:
    next: int
    head: int
    floor: int
    epoch: int
    rows: tuple

    @staticmethod
    def read(body):
        following, head, floor, epoch, count = struct.unpack_from("<QQQII", body)
        rows, at = [], 32
        for _ in range(count):
            row, length = Row.first(body[at:])
            rows.append(row)
            at += length
        if at != len(body):
            raise Malformed("bytes follow the rows")
        return Page(following, head, floor, epoch, tuple(rows))


def skip(body):
    return struct.unpack_from("<QQ", body)
