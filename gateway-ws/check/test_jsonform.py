"""Holds jsonform.py to protocol/vectors/json.json, which the gateway is held to as well."""

import json
import uuid

import jsonform as form
import wire
from jsonvalue import ANSWERS, FRAMES, PROTOCOL, Fault, parse
from jsonwritten import HOT_ORDER, written_well

VECTORS = json.loads((PROTOCOL / "vectors" / "json.json").read_text())


def binary(frame):
    """The frame in binary, by the codec of sdk/python-check; None where it has an envelope or a row of the broker's."""
    op, body = frame.op, frame.body

    def record(one):
        if one["envelope"] or not isinstance(one["body"], bytes):
            return None
        return wire.send(one["log"], one["body"], client_message_id=uuid.UUID(bytes=one["client_message_id"]),
                         dseq=one["dseq"], kind=one["kind"], content_type=one["content_type"], act_as=one["act_as"])

    if op == "SEND":
        data = record(body)
    elif op == "SEND_BATCH":
        records = [record(one) for one in body["records"]]
        data = None if None in records else wire.send_batch(records)
    elif op == "IMPORT":
        records = [(one["time_ms"], record(one)) for one in body["records"]]
        data = None if any(made is None for _, made in records) else wire.send_batch([wire.imported(*one) for one in records])
    elif op in HOT_ORDER or op in ("MESSAGES_PAGE", "CHANNEL_OPEN"):
        return None
    else:
        name = ANSWERS.get(body.get("to")) if op == "OK" else FRAMES[op][1]
        fields = {key: value for key, value in body.items() if key != "envelope" and (op, key) != ("OK", "to")}
        if op == "SIGNALED":
            fields["handle"] = frame.id
        if op in ("HEAD",) or "entries" in fields:
            return None
        data = b"" if name in (None, "empty") else wire.encode(name, {key: lower(one) for key, one in fields.items()})
    number = {"OPEN": 0x06, "BEHIND": 0x18}.get(op, op)
    return None if data is None else wire.frame(number, frame.id, data)


def lower(value):
    """Negative enumerations are written as 64 bits."""
    if isinstance(value, dict):
        return {name: lower(one) for name, one in value.items()}
    if isinstance(value, list):
        return [lower(one) for one in value]
    return value % (1 << 64) if isinstance(value, int) and not isinstance(value, bool) and value < 0 else value


def side_of(name):
    return FRAMES[name][0]


def vectors():
    """Every line says the frame, its id and its numbers; where this client can write it in binary, the same bytes."""
    compared = 0
    for vector in VECTORS["vectors"] + VECTORS["also_read"]:
        frame = form.read(vector["json"], side_of(vector["frame"]))
        data = bytes.fromhex(vector["hex"])
        length, number, _, _, ident = wire.HEADER.unpack_from(data)
        if (frame.op, frame.id) != (vector["frame"], ident) or length + wire.HEADER.size != len(data):
            return f"{vector['name']}: {frame}"
        if frame.op == "EVENT":
            row = wire.Row.only(data[wire.HEADER.size:])
            for name in ("seq", "msgno", "time_ms", "content_hash", "kind", "redacted", "content_type", "sender", "via"):
                if getattr(row, name) != frame.body[name]:
                    return f"{vector['name']}: {name} is {frame.body[name]}, {getattr(row, name)} in binary"
            body = frame.body["body"]
            if (isinstance(body, bytes) and body != row.body) or bool(row.envelope) != bool(frame.body["envelope"]):
                return f"{vector['name']}: another body or envelope"
        made = binary(frame)
        if made is not None:
            compared += 1
            if made != data:
                return f"{vector['name']}: {made.hex()} is not {vector['hex']}"
    return None if compared > 60 else f"only {compared} lines could be compared with their binary form"


def written():
    """Exact lines are written as section 13 says."""
    for vector in VECTORS["vectors"]:
        written_well(vector["json"])


def refused():
    """Refused lines are what they claim. Where a line is no JSON, only the code can be told."""
    for vector in VECTORS["refused"]:
        try:
            form.read(vector["line"], "client")
        except Fault as fault:
            if fault.code != vector["error"]:
                return f"{vector['name']}: {fault.code}"
            if is_json(vector["line"]) and fault.field != vector["field"]:
                return f"{vector['name']}: field {fault.field!r}, not {vector['field']!r}"
        else:
            return f"{vector['name']}: accepted"
    return None


def is_json(line):
    try:
        parse(line)
    except Fault:
        return False
    return True


CHECKS = [vectors, written, refused]
