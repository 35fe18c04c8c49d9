"""Holds wire.py to protocol/vectors, which the broker is held to as well."""

import json
import pathlib
import unittest
import uuid

import wire

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "vectors"


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text())["vectors"]


def plain(value):
    """A decoded body as the vectors write it: bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def octets(message, fields):
    """The same backwards, by the kinds of the fields."""
    kinds = {name: kind.rstrip("*?") for name, kind in wire.MESSAGES[message].values()}

    def one(kind, value):
        if isinstance(value, list):
            return [one(kind, item) for item in value]
        if isinstance(value, dict):
            return octets(kind, value)
        return bytes.fromhex(value) if kind == "bytes" else value

    return {name: one(kinds[name], value) for name, value in fields.items()}


def send(vector):
    return wire.send(
        vector["log"], bytes.fromhex(vector["body"]), client_message_id=uuid.UUID(vector["client_message_id"]),
        dseq=vector["dseq"], kind=vector["kind"], content_type=vector["content_type"], act_as=vector["act_as"],
        envelope=bytes.fromhex(vector["envelope"]),
    )


class Vectors(unittest.TestCase):
    def test_headers(self):
        for vector in vectors("header"):
            fields = tuple(vector[name] for name in ("length", "type", "flags", "id"))
            length, kind, flags, zero, ident = wire.HEADER.unpack(bytes.fromhex(vector["hex"]))
            self.assertEqual((length, kind, flags, ident, zero), (*fields, 0), vector["name"])

    def test_log_keys(self):
        for vector in vectors("log_keys"):
            self.assertEqual(str(wire.log_key(vector["tenant"], vector["log"])), vector["key"])

    def test_rows(self):
        for vector in vectors("rows"):
            row = wire.Row.only(bytes.fromhex(vector["hex"]))
            for name in ("seq", "msgno", "time_ms", "kind", "redacted", "content_type", "sender", "via"):
                self.assertEqual(getattr(row, name), vector[name], vector["name"])
            self.assertEqual(str(row.event_id), vector["event_id"])
            self.assertEqual(str(row.client_message_id), vector["client_message_id"])
            self.assertEqual((row.envelope.hex(), row.body.hex()), (vector["envelope"], vector["body"]))
            self.assertEqual(str(row.content_hash), vector["content_hash"])
            if not row.redacted:
                made = wire.content_hash(row.kind, row.content_type, row.envelope, row.body)
                self.assertEqual(made, row.content_hash, vector["name"])

    def test_hot_frames(self):
        for vector in vectors("hot_frames"):
            data = bytes.fromhex(vector["hex"])
            frames = wire.Frames()
            frames.push(data)
            [(name, ident, body)] = list(frames)
            self.assertEqual(name, vector["frame"])
            if name == "SEND":
                self.assertEqual(wire.frame(name, ident, send(vector)), data, vector["name"])
            elif name == "SEND_BATCH":
                records = [send(record) for record in vector["records"]]
                self.assertEqual(wire.frame(name, ident, wire.send_batch(records)), data)
            elif name == "IMPORT":
                records = [wire.imported(record["time_ms"], send(record)) for record in vector["records"]]
                self.assertEqual(wire.frame(name, ident, wire.send_batch(records)), data)
            elif name == "ACK":
                ack = wire.Ack.read(body)
                for field in ("seq", "msgno", "time_ms", "epoch", "duplicate"):
                    self.assertEqual(getattr(ack, field), vector[field])
                self.assertEqual(str(ack.event_id), vector["event_id"])
            elif name == "PAGE":
                page = wire.Page.read(body)
                for field in ("next", "head", "floor", "epoch"):
                    self.assertEqual(getattr(page, field), vector[field])
                self.assertEqual(list(page.rows), [wire.Row.only(bytes.fromhex(row)) for row in vector["rows"]])
            elif name == "EVENT":
                self.assertEqual((ident, body.hex()), (vector["handle"], vector["row"]))
            elif name == "SKIP":
                self.assertEqual(wire.skip(body), (vector["from"], vector["to"]))
            else:
                self.assertEqual((ident, body), (vector["class"] if name == "OPEN" else vector["handle"], b""))

    def test_control_frames(self):
        for vector in vectors("control_frames"):
            body, message = bytes.fromhex(vector["body"]), vector["message"]
            self.assertEqual(plain(wire.decode(message, body)), vector["fields"], vector["name"])
            self.assertEqual(wire.encode(message, octets(message, vector["fields"])), body, vector["name"])
            if vector["frame"]:
                self.assertEqual(wire.FRAMES[vector["frame"]], vector["type"])

    def test_a_stream_may_be_cut_anywhere(self):
        stream = b"".join(bytes.fromhex(vector["hex"]) for vector in vectors("hot_frames"))
        whole = wire.Frames()
        whole.push(stream)
        frames, pieces = list(whole), wire.Frames()
        found = []
        for at in range(len(stream)):
            pieces.push(stream[at : at + 1])
            found.extend(pieces)
        self.assertEqual(found, frames)


if __name__ == "__main__":
    unittest.main()
