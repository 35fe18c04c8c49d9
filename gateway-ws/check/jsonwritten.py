"""Whether a line is written as section 13 of protocol/SPEC.md has brokers write it."""

import json

from jsonform import BY_HANDLE, ENVELOPE
from jsonvalue import ANSWERS, FRAMES, MESSAGES, Fault, Number, Object, parse


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
             "imported", "sender", "via", "*"]
CONTENT_ORDER = ["text", "data", "body_b64", "body", "content_type", *ENVELOPE]
HOT_ORDER = {
    "SEND": ["log", "client_message_id", "dseq", "kind", "act_as", "*"], "SEND_BATCH": ["records"], "IMPORT": ["records"],
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
