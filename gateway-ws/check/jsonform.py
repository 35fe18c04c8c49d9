"""Frames as JSON lines, after sections 3, 5, 12 and 13 of protocol/SPEC.md and protocol/proto/antiphon.proto."""

import hashlib
import re
from dataclasses import dataclass

from jsonvalue import (
    ANSWERS, ENUMS, FRAMES, MESSAGES, Fault, Members, Number, Object, boolean, check_value, counter, enum_of, list_of, matching,
    object_of, octets, parse, position, string, u32, uuid_bytes,
)

ENVELOPE_BYTES_MAX = 16384
KINDS = {
    1: "message", 2: "message.edit", 3: "message.redact", 4: "reaction", 5: "pin", 16: "member", 17: "conversation",
    32: "conversation.added", 33: "conversation.removed", 34: "preferences", 35: "block", 36: "hide", 37: "revoked",
}
EVENT_BODIES = {
    "member": "MemberEvent", "conversation": "ConversationEvent", "conversation.added": "ConversationAdded",
    "conversation.removed": "ConversationRemoved", "preferences": "Preferences", "block": "Block", "hide": "Hide",
    "revoked": "Revoked",
}
CONTENT_TYPES = {0: "text/plain", 1: "application/json", 2: "application/octet-stream", 3: "protobuf"}
BODY_MEMBERS = {"text": 0, "data": 1, "body_b64": 2, "body": 3}
ENVELOPE = ["relates_to", "reply_to", "thread", "mentions", "attachments", "properties", "silent", "expires_at_ms"]
WITHOUT_ENVELOPE = {"ReplyPreview", "LastMessage"}
UUIDS = {"session_id", "sender_instance", "event_id"}
BY_HANDLE = {"EVENT", "SKIP", "BEHIND", "DETACH", "CURSORS", "SIGNALED"}
HOT = {"SEND", "SEND_BATCH", "ACK", "PAGE", "EVENT", "SKIP", "OK"}
EMPTY = {"OPEN", "BEHIND"}
ID = re.compile(r"[A-Za-z0-9._:@|~-]{1,64}")
LOG = re.compile(r"[cu]:[A-Za-z0-9._:@|~-]{1,64}")


def _kind(value):
    if isinstance(value, Number):
        return counter(value, 255)
    numbers = {name: number for number, name in KINDS.items()}
    if string(value) not in numbers:
        raise Fault("invalid_field")
    return numbers[value]


def _content_type(value):
    if isinstance(value, Number):
        return u32(value)
    numbers = {name: number for number, name in CONTENT_TYPES.items()}
    if string(value) not in numbers:
        raise Fault("invalid_field")
    return numbers[value]


def _event_ref(members):
    return {"seq": members.need("seq", counter), "event_id": members.need("event_id", uuid_bytes)}


def _relation(members):
    return {**_event_ref(members), "key": members.take("key", string), "remove": members.take("remove", boolean, False)}


def _attachment(members):
    out = {"url": members.need("url", string)}
    for name, read in (("name", string), ("mime", string), ("size", counter), ("width", u32), ("height", u32),
                       ("duration_ms", counter), ("thumbnail_url", string)):
        out[name] = members.take(name, read)
    return out


def _properties(value):
    if not isinstance(value, Object):
        raise Fault("malformed")
    if len(value) > 32:
        raise Fault("limit_exceeded")
    return {name: string(one) for name, one in value}


def _size(value):
    if isinstance(value, dict):
        return sum(_size(one) for pair in value.items() for one in pair)
    return sum(map(_size, value)) if isinstance(value, list) else len(value.encode()) if isinstance(value, str) else 0


def _content(members, kind, envelope=True):
    """Content type, body (None where it is `data` or absent, as bytes otherwise) and the envelope's members."""
    said, body = None, b""
    for name, number in BODY_MEMBERS.items():
        if name not in members.left:
            continue
        if name == "text":
            found = members.take(name, lambda value: string(value).encode())
        elif name == "data":
            found = members.take(name, lambda value: value)
        elif name == "body_b64":
            found = members.take(name, octets)
        else:
            message = EVENT_BODIES.get(KINDS.get(kind))
            if message is None:
                raise Fault("invalid_field", "body")
            found = members.take(name, message_reader(message))
        if said is not None:
            raise Fault("malformed", name)
        said, body = number, found
    content_type = members.take("content_type", _content_type)
    if said not in (None, 2) and content_type not in (None, said):
        raise Fault("invalid_field", "content_type")
    out = {"content_type": content_type if content_type is not None else said or 0, "body": body}
    if envelope:
        found = {
            "relates_to": members.take("relates_to", object_of(_relation)),
            "reply_to": members.take("reply_to", object_of(_event_ref)),
            "thread": members.take("thread", object_of(_event_ref)),
            "mentions": members.take("mentions", list_of(matching(ID), 64)),
            "attachments": members.take("attachments", list_of(object_of(_attachment), 16)),
            "properties": members.take("properties", _properties),
            "silent": members.take("silent", boolean),
            "expires_at_ms": members.take("expires_at_ms", counter),
        }
        out["envelope"] = {name: one for name, one in found.items() if one}
        if _size(found["properties"] or {}) + _size(found["attachments"] or []) > ENVELOPE_BYTES_MAX:
            raise Fault("limit_exceeded", "envelope")
    return out


def message_reader(name):
    return object_of(lambda members: read_message(members, name))


def _scalar(field):
    if field.type == "bytes":
        if field.name == "row":
            return object_of(read_row)
        # An empty one is the field's default.
        return (lambda value: uuid_bytes(value) if value != "" else b"") if field.name in UUIDS else octets
    kinds = {"uint32": u32, "uint64": counter, "bool": boolean, "string": string, "Position": position}
    return kinds.get(field.type) or (enum_of(ENUMS[field.type]) if field.type in ENUMS else message_reader(field.type))


def read_message(members, name, header=None):
    """A Protobuf message's fields as a dict; absent ones are left out."""
    out, groups = {}, set()
    for field in MESSAGES[name]:
        if field.name == "content_type":
            out.update(_content(members, 2, name not in WITHOUT_ENVELOPE))
            continue
        if field.name in ("envelope", "body"):
            continue
        if field.name == header:
            continue
        read = list_of(_scalar(field)) if field.repeated else _scalar(field)
        found = members.take(field.name, read)
        if found is not None:
            if field.oneof and field.oneof in groups:
                raise Fault("malformed", field.name)
            groups.add(field.oneof)
            out[field.name] = found
    return out


def read_row(members):
    kind = members.need("kind", _kind)
    out = {
        "seq": members.need("seq", counter), "msgno": members.need("msgno", counter),
        "time_ms": members.need("time_ms", counter), "event_id": members.need("event_id", uuid_bytes),
        "client_message_id": members.take("client_message_id", uuid_bytes, bytes(16)),
        "content_hash": members.need("content_hash", _hash), "kind": kind,
        "redacted": members.take("redacted", boolean, False), "unchanged": members.take("unchanged", boolean, False),
        "imported": members.take("imported", boolean, False),
        "sender": members.need("sender", matching(ID)), "via": members.take("via", matching(ID), ""),
    }
    return {**out, **_content(members, kind)}


def _hash(value):
    if not re.fullmatch(r"[0-9a-f]{16}", string(value)):
        raise Fault("malformed")
    return int(value, 16)


def read_record(members, read_id=None):
    kind = members.take("kind", _kind, 1)
    content = _content(members, kind)
    if content["content_type"] > 3:
        raise Fault("invalid_field", "content_type")
    return {
        "client_message_id": read_id(members) if read_id else members.need("client_message_id", uuid_bytes),
        "dseq": members.take("dseq", counter, 0), "kind": kind, "log": members.need("log", matching(LOG)),
        "act_as": members.take("act_as", matching(ID), ""), **content,
    }


def read_imported(members):
    """A record of an IMPORT; the event's name in the other system may stand in place of its id."""
    time_ms = members.need("time_ms", counter)
    return {"time_ms": time_ms, **read_record(members, _imported_id)}


def _imported_id(members):
    external = members.take("external_id", string)
    if external is None:
        return members.need("client_message_id", uuid_bytes)
    if not 1 <= len(external.encode()) <= 255:
        raise Fault("invalid_field", "external_id")
    return uuid8(b"external-id", external.encode())


def uuid8(what, name):
    """A UUIDv8 of the first 16 bytes of SHA-256, as sections 6 and 16 make ids."""
    made = bytearray(hashlib.sha256(what + b"\0" + name).digest()[:16])
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


def _read_body(op, members):
    if op == "SEND":
        return read_record(members)
    if op == "SEND_BATCH":
        return {"records": members.need("records", list_of(object_of(read_record)))}
    if op == "IMPORT":
        return {"records": members.need("records", list_of(object_of(read_imported)))}
    if op == "ACK":
        return {"position": members.need("position", position), "msgno": members.need("msgno", counter),
                "time_ms": members.need("time_ms", counter), "event_id": members.need("event_id", uuid_bytes),
                "duplicate": members.take("duplicate", boolean, False)}
    if op == "PAGE":
        out = {name: members.need(name, counter) for name in ("next", "head", "floor", "epoch")}
        return {**out, "rows": members.need("rows", list_of(object_of(read_row)))}
    if op == "EVENT":
        return read_row(members)
    if op == "SKIP":
        return {"from": members.need("from", counter), "to": members.need("to", counter)}
    if op == "OK":
        to = members.take("to", string)
        if to is None:
            return {}
        if to not in ANSWERS:
            raise Fault("invalid_field", "to")
        return {"to": to, **read_message(members, ANSWERS[to])}
    if op in EMPTY or FRAMES[op][1] == "empty":
        return {}
    return read_message(members, FRAMES[op][1], "handle" if op in BY_HANDLE else None)


@dataclass
class Frame:
    op: str
    id: int
    body: dict


def read(line, side):
    """The frame in a line that `side` ("client" or "broker") wrote."""
    value = parse(line)
    if not isinstance(value, Object):
        raise Fault("malformed")
    names = [name for name, _ in value]
    first = dict(reversed(value))
    op = first.get("op")
    ident, known = first.get("handle" if op in BY_HANDLE else "id", Number("0")), None
    if isinstance(op, str) and op in FRAMES and FRAMES[op][0] == side and names.count("id") < 2:
        try:
            known = (op, u32(ident))
        except Fault:
            pass
    try:
        check_value(value)
        members = Members(value)
        op = members.need("op", string)
        if op not in FRAMES:
            raise Fault("unknown_frame", "op")
        if FRAMES[op][0] != side:
            raise Fault("unexpected_frame", "op")
        header = "handle" if op in BY_HANDLE else "class" if op == "OPEN" else "id"
        ident = members.take(header, u32, 0) if header == "id" else members.need(header, u32)
        body = _read_body(op, members)
        members.finish()
    except Fault as fault:
        raise Fault(fault.code, fault.field, known) from None
    return Frame(op, ident, body)
