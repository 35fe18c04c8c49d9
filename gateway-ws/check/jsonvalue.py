"""JSON values as section 13 of protocol/SPEC.md reads them, and what the specification's own tables and .proto file say.

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


def check_value(value, depth=0, data=False, loose=False):
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
                check_value(name)
                if name in seen:
                    raise Fault("malformed", "" if loose else name)
                seen.add(name)
            inside = data or name == "data"
            try:
                check_value(one, 0 if inside and not data else depth + 1, inside, inside or name == "properties")
            except Fault as fault:
                raise fault.within(name) if name is not None and not loose else fault from None


def string(value):
    if not isinstance(value, str) or isinstance(value, Number):
        raise Fault("malformed")
    return value


def counter(value, most=COUNTER_MAX):
    if not isinstance(value, Number) or not re.fullmatch(r"0|[1-9][0-9]*", value) or len(value) > 20 or int(value) > most:
        raise Fault("malformed")
    return int(value)


def u32(value):
    return counter(value, U32_MAX)


def boolean(value):
    if not isinstance(value, bool):
        raise Fault("malformed")
    return value


def uuid_bytes(value):
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", string(value)):
        raise Fault("malformed")
    return uuid.UUID(value).bytes


def octets(value):
    text = string(value)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Fault("malformed") from None
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise Fault("malformed")
    return data


def position(value):
    found = POSITION.fullmatch(string(value))
    if not found or int(found[1]) > U32_MAX or int(found[2]) > COUNTER_MAX:
        raise Fault("malformed")
    return {"epoch": int(found[1]), "seq": int(found[2])}


def matching(pattern):
    def read(value):
        if not pattern.fullmatch(string(value)):
            raise Fault("invalid_field")
        return value
    return read


def list_of(read, most=None):
    def read_list(value):
        if not isinstance(value, list) or isinstance(value, Object):
            raise Fault("malformed")
        if most is not None and len(value) > most:
            raise Fault("limit_exceeded")
        return [read(one) for one in value]
    return read_list


def enum_of(values):
    def read(value):
        if isinstance(value, Number):
            if re.fullmatch(r"-?[0-9]+", value) and -(1 << 31) <= int(value) < 1 << 31:
                return int(value)
            raise Fault("malformed")
        if string(value) not in values:
            raise Fault("invalid_field")
        return values[value]
    return read


def object_of(read):
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


def plain(value):
    """The same as usual Python values."""
    if isinstance(value, Object):
        return {name: plain(one) for name, one in value}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Number):
        return int(value) if re.fullmatch(r"-?[0-9]+", value) else float(value)
    return value
