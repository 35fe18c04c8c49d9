"""Frames as JSON lines, after sections 3, 5, 12 and 13 of protocol/SPEC.md and protocol/proto/antiphon.proto.

Imports nothing of ours and generates nothing, so that it agrees with the gateway only if both agree with the
specification.
"""

import base64
import binascii
import json
import pathlib
import re
import uuid
from dataclasses import dataclass

PROTOCOL = pathlib.Path(__file__).resolve().parents[2] / "protocol"
COUNTER_MAX, U32_MAX, DEPTH_MAX = (1 << 53) - 1, (1 << 32) - 1, 32
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
POSITION = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")


class Fault(Exception):
    """A line that is not as specified. `frame` = (op, id) where that request is refused, and nothing else."""

    def __init__(self, code, field="", frame=None):
        super().__init__(f"{code} {field}".strip())
        self.code, self.field, self.frame = code, field, frame

    def within(self, name):
        return Fault(self.code, f"{name}.{self.field}" if self.field else name)


@dataclass(frozen=True)
class Field:
    number: int
    name: str
    type: str
    repeated: bool
    oneof: str


def read_proto(text):
    """Messages (name -> fields by number) and enumerations (name -> name -> number) of a .proto file as simple as ours."""
    text = re.sub(r"//[^\n]*", "", text)
    messages, enums, at = {}, {}, []
    for part in re.finditer(
        r"message (\w+) \{|enum (\w+) \{|oneof (\w+) \{|(\})"
        r"|(repeated |optional )?(\w+) (\w+) = (\d+);|(\w+) = (\d+);",
        text,
    ):
        message, enum, oneof, close, label, kind, name, number, value, value_number = part.groups()
        if message:
            at.append(("message", message))
            messages[message] = []
        elif enum:
            owner = at[-1][1] + "." if at else ""
            at.append(("enum", owner + enum))
            enums[owner + enum] = {}
        elif oneof:
            at.append(("oneof", oneof))
        elif close:
            at.pop()
        elif value:
            enums[at[-1][1]][value.lower()] = int(value_number)
        else:
            owner = next(name for what, name in reversed(at) if what == "message")
            group = at[-1][1] if at[-1][0] == "oneof" else ""
            kind = f"{owner}.{kind}" if f"{owner}.{kind}" in enums else kind
            messages[owner].append(Field(int(number), name, kind, label == "repeated ", group))
    return {name: sorted(fields, key=lambda field: field.number) for name, fields in messages.items()}, enums


MESSAGES, ENUMS = read_proto((PROTOCOL / "proto" / "antiphon.proto").read_text())


def read_frames(spec):
    """The table of section 3: name -> (from, body), and request -> body of its OK."""
    frames, answers = {}, {}
    for row in re.finditer(r"^\| 0x[0-9a-f]{2} \| (\w+) \| (\w+) \| \w+ \| \w+ \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", spec, re.M):
        name, side, body, answer = (part.strip() for part in row.groups())
        frames[name] = (side, body)
        told = re.match(r"OK\((\w+)\)", answer)
        if told:
            answers[name] = told.group(1)
    return frames, answers


FRAMES, ANSWERS = read_frames((PROTOCOL / "SPEC.md").read_text())


class Number(str):
    """A number as it was written."""


class Object(list):
    """An object as its pairs, in their order."""


def _refuse(_):
    raise Fault("malformed")


def parse(text):
    """JSON with numbers as written and objects as pairs. Raises for what is no JSON at all."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise Fault("malformed") from None
    try:
        return json.loads(text, object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Fault("malformed") from None


def check(value, depth=0, data=False, loose=False):
    """What JSON allows and we do not: a member twice, a lone surrogate, deep nesting. `data` counts its depth by itself.
    `loose`: the names are the application's, and none of them is named in an error."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Fault("malformed") from None
    elif isinstance(value, list):
        if depth >= DEPTH_MAX:
            raise Fault("malformed")
        pairs = value if isinstance(value, Object) else [(None, one) for one in value]
        seen = set()
        for name, one in pairs:
            if name is not None:
                check(name)
                if name in seen:
                    raise Fault("malformed", "" if loose else name)
                seen.add(name)
            inside = data or name == "data"
            try:
                check(one, 0 if inside and not data else depth + 1, inside, inside or name == "properties")
            except Fault as fault:
                raise fault.within(name) if name is not None and not loose else fault from None


def _string(value):
    if not isinstance(value, str) or isinstance(value, Number):
        raise Fault("malformed")
    return value


def _counter(value, most=COUNTER_MAX):
    if not isinstance(value, Number) or not re.fullmatch(r"0|[1-9][0-9]*", value) or len(value) > 20 or int(value) > most:
        raise Fault("malformed")
    return int(value)


def _u32(value):
    return _counter(value, U32_MAX)


def _bool(value):
    if not isinstance(value, bool):
        raise Fault("malformed")
    return value


def _uuid(value):
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", _string(value)):
        raise Fault("malformed")
    return uuid.UUID(value).bytes


def _octets(value):
    text = _string(value)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Fault("malformed") from None
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise Fault("malformed")
    return data


def _position(value):
    found = POSITION.fullmatch(_string(value))
    if not found or int(found[1]) > U32_MAX or int(found[2]) > COUNTER_MAX:
        raise Fault("malformed")
    return {"epoch": int(found[1]), "seq": int(found[2])}


def _matching(pattern):
    def read(value):
        if not pattern.fullmatch(_string(value)):
            raise Fault("invalid_field")
        return value
    return read


def _list(read, most=None):
    def read_list(value):
        if not isinstance(value, list) or isinstance(value, Object):
            raise Fault("malformed")
        if most is not None and len(value) > most:
            raise Fault("limit_exceeded")
        return [read(one) for one in value]
    return read_list


def _enum(values):
    def read(value):
        if isinstance(value, Number):
            if re.fullmatch(r"-?[0-9]+", value) and -(1 << 31) <= int(value) < 1 << 31:
                return int(value)
            raise Fault("malformed")
        if _string(value) not in values:
            raise Fault("invalid_field")
        return values[value]
    return read


def _object(read):
    def read_object(value):
        members = Members(value)
        found = read(members)
        members.finish()
        return found
    return read_object


class Members:
    """The members of an object, taken one by one."""

    def __init__(self, value):
        if not isinstance(value, Object):
            raise Fault("malformed")
        self.left = dict(value)

    def take(self, name, read, default=None):
        if name not in self.left:
            return default
        try:
            return read(self.left.pop(name))
        except Fault as fault:
            raise fault.within(name) from None

    def need(self, name, read):
        if name not in self.left:
            raise Fault("malformed", name)
        return self.take(name, read)

    def finish(self):
        for name in self.left:
            raise Fault("unknown_fields", name)


def _kind(value):
    if isinstance(value, Number):
        return _counter(value, 255)
    numbers = {name: number for number, name in KINDS.items()}
    if _string(value) not in numbers:
        raise Fault("invalid_field")
    return numbers[value]


def _content_type(value):
    if isinstance(value, Number):
        return _u32(value)
    numbers = {name: number for number, name in CONTENT_TYPES.items()}
    if _string(value) not in numbers:
        raise Fault("invalid_field")
    return numbers[value]


def _event_ref(members):
    return {"seq": members.need("seq", _counter), "event_id": members.need("event_id", _uuid)}


def _relation(members):
    return {**_event_ref(members), "key": members.take("key", _string), "remove": members.take("remove", _bool, False)}


def _attachment(members):
    out = {"url": members.need("url", _string)}
    for name, read in (("name", _string), ("mime", _string), ("size", _counter), ("width", _u32), ("height", _u32),
                       ("duration_ms", _counter), ("thumbnail_url", _string)):
        out[name] = members.take(name, read)
    return out


def _properties(value):
    if not isinstance(value, Object):
        raise Fault("malformed")
    if len(value) > 32:
        raise Fault("limit_exceeded")
    return {name: _string(one) for name, one in value}


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
            found = members.take(name, lambda value: _string(value).encode())
        elif name == "data":
            found = members.take(name, lambda value: value)
        elif name == "body_b64":
            found = members.take(name, _octets)
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
            "relates_to": members.take("relates_to", _object(_relation)),
            "reply_to": members.take("reply_to", _object(_event_ref)),
            "thread": members.take("thread", _object(_event_ref)),
            "mentions": members.take("mentions", _list(_matching(ID), 64)),
            "attachments": members.take("attachments", _list(_object(_attachment), 16)),
            "properties": members.take("properties", _properties),
            "silent": members.take("silent", _bool),
            "expires_at_ms": members.take("expires_at_ms", _counter),
        }
        out["envelope"] = {name: one for name, one in found.items() if one}
        if _size(found["properties"] or {}) + _size(found["attachments"] or []) > ENVELOPE_BYTES_MAX:
            raise Fault("limit_exceeded", "envelope")
    return out


def message_reader(name):
    return _object(lambda members: read_message(members, name))


def _scalar(field):
    if field.type == "bytes":
        if field.name == "row":
            return _object(read_row)
        # An empty one is the field's default.
        return (lambda value: _uuid(value) if value != "" else b"") if field.name in UUIDS else _octets
    kinds = {"uint32": _u32, "uint64": _counter, "bool": _bool, "string": _string, "Position": _position}
    return kinds.get(field.type) or (_enum(ENUMS[field.type]) if field.type in ENUMS else message_reader(field.type))


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
        read = _list(_scalar(field)) if field.repeated else _scalar(field)
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
        "seq": members.need("seq", _counter), "msgno": members.need("msgno", _counter),
        "time_ms": members.need("time_ms", _counter), "event_id": members.need("event_id", _uuid),
        "client_message_id": members.take("client_message_id", _uuid, bytes(16)),
        "content_hash": members.need("content_hash", _hash), "kind": kind,
        "redacted": members.take("redacted", _bool, False), "unchanged": members.take("unchanged", _bool, False),
        "sender": members.need("sender", _matching(ID)), "via": members.take("via", _matching(ID), ""),
    }
    return {**out, **_content(members, kind)}


def _hash(value):
    if not re.fullmatch(r"[0-9a-f]{16}", _string(value)):
        raise Fault("malformed")
    return int(value, 16)


def read_record(members):
    kind = members.take("kind", _kind, 1)
    content = _content(members, kind)
    if content["content_type"] > 3:
        raise Fault("invalid_field", "content_type")
    return {
        "client_message_id": members.need("client_message_id", _uuid), "dseq": members.take("dseq", _counter, 0),
        "kind": kind, "log": members.need("log", _matching(LOG)), "act_as": members.take("act_as", _matching(ID), ""),
        **content,
    }


def _read_body(op, members):
    if op == "SEND":
        return read_record(members)
    if op == "SEND_BATCH":
        return {"records": members.need("records", _list(_object(read_record)))}
    if op == "ACK":
        return {"position": members.need("position", _position), "msgno": members.need("msgno", _counter),
                "time_ms": members.need("time_ms", _counter), "event_id": members.need("event_id", _uuid),
                "duplicate": members.take("duplicate", _bool, False)}
    if op == "PAGE":
        out = {name: members.need(name, _counter) for name in ("next", "head", "floor", "epoch")}
        return {**out, "rows": members.need("rows", _list(_object(read_row)))}
    if op == "EVENT":
        return read_row(members)
    if op == "SKIP":
        return {"from": members.need("from", _counter), "to": members.need("to", _counter)}
    if op == "OK":
        to = members.take("to", _string)
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
    if names.count("op") == 1 and isinstance(op, str) and op in FRAMES and FRAMES[op][0] == side and names.count("id") < 2:
        try:
            known = (op, _u32(ident))
        except Fault:
            pass
    try:
        check(value)
        members = Members(value)
        op = members.need("op", _string)
        if op not in FRAMES:
            raise Fault("unknown_frame", "op")
        if FRAMES[op][0] != side:
            raise Fault("unexpected_frame", "op")
        header = "handle" if op in BY_HANDLE else "class" if op == "OPEN" else "id"
        ident = members.take(header, _u32, 0) if header == "id" else members.need(header, _u32)
        body = _read_body(op, members)
        members.finish()
    except Fault as fault:
        raise Fault(fault.code, fault.field, None if fault.field == "op" else known) from None
    return Frame(op, ident, body)


def plain(value):
    """The same as usual Python values."""
    if isinstance(value, Object):
        return {name: plain(one) for name, one in value}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Number):
        return int(value) if re.fullmatch(r"-?[0-9]+", value) else float(value)
    return value


def compact(value):
    """A value as brokers write it; only `data` keeps what its sender wrote."""
    if isinstance(value, Object):
        return "{" + ",".join(f"{compact(name)}:{compact(one)}" for name, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


ROW_ORDER = ["seq", "msgno", "time_ms", "event_id", "client_message_id", "content_hash", "kind", "redacted", "unchanged",
             "sender", "via", "*"]
CONTENT_ORDER = ["text", "data", "body_b64", "body", "content_type", *ENVELOPE]
HOT_ORDER = {
    "SEND": ["log", "client_message_id", "dseq", "kind", "act_as", "*"], "SEND_BATCH": ["records"],
    "ACK": ["position", "msgno", "time_ms", "event_id", "duplicate"], "PAGE": ["next", "head", "floor", "epoch", "rows"],
    "EVENT": ROW_ORDER, "SKIP": ["from", "to"],
}


def order_of(op, to=None):
    """Names of a frame's members in the order of section 13's tables."""
    header = ["op", "handle" if op in BY_HANDLE else "class" if op == "OPEN" else "id"]
    if op in HOT_ORDER:
        names = HOT_ORDER[op]
    elif op == "OK":
        names = ["to", *message_order(ANSWERS[to])] if to else []
    else:
        names = [] if FRAMES[op][1] == "empty" else message_order(FRAMES[op][1])
    out = []
    for name in [*header, *names]:
        out.extend(CONTENT_ORDER if name == "*" else [name])
    return list(dict.fromkeys(out))


def message_order(name):
    names = [field.name for field in MESSAGES[name]]
    if "content_type" not in names:
        return names
    # Content stands where its first field would.
    first = min(names.index(one) for one in ("content_type", "envelope", "body") if one in names)
    return [*(name for name in names[:first]), "*", *(n for n in names[first:] if n not in ("content_type", "envelope", "body"))]


def written_well(line):
    """Raises unless a line is written as section 13 says: no white space, members in order, nothing escaped needlessly."""
    value = parse(line)
    if not any(name == "data" for name, _ in _all_pairs(value)) and compact(value) != line:
        raise Fault("malformed", "white space or escapes")
    members = dict(value)
    order = order_of(members["op"], members.get("to"))
    places = [order.index(name) for name, _ in value if name in order]
    if places != sorted(places) or value[0][0] != "op":
        raise Fault("malformed", f"order of members: {[name for name, _ in value]}")


def _all_pairs(value):
    if isinstance(value, Object):
        for name, one in value:
            yield name, one
            if name != "data":
                yield from _all_pairs(one)
    elif isinstance(value, list):
        for one in value:
            yield from _all_pairs(one)
