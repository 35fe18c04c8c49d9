"""A WebSocket by hand, for what a library does not write."""

import asyncio
import base64
import os
import socket as sockets
import struct
import urllib.parse

from client import JSON


class Raw:
    """A socket by hand, for what a library does not write."""

    def __init__(self, url, buffer=None):
        parts = urllib.parse.urlsplit(url)
        self.host = parts.netloc
        self.socket = sockets.socket()
        if buffer:
            self.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, buffer)
        self.socket.settimeout(15)
        self.socket.connect((parts.hostname, parts.port))

    def upgrade(self, more="", version="13", protocol=JSON):
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /api/v1/socket HTTP/1.1\r\nHost: {self.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n{more}\r\n"
            .encode())
        return self.head()

    def head(self):
        data = b""
        while b"\r\n\r\n" not in data:
            got = self.socket.recv(1)
            if not got:
                return 0
            data += got
        return int(data.split(b" ", 2)[1])

    def send(self, opcode, payload, fin=True, masked=True, rsv=0):
        first, mask = (0x80 if fin else 0) | rsv | opcode, os.urandom(4)
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
        if masked:
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
            length = bytes([length[0] | 0x80]) + length[1:] + mask
        self.socket.sendall(bytes([first]) + length + payload)

    def receive(self):
        """(opcode, payload), or (None, b"") at the end."""
        try:
            head = self._exactly(2)
            size = head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
            return head[0] & 0x0F, self._exactly(size)
        except (EOFError, ConnectionError):
            return None, b""

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            got = self.socket.recv(count - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def end(self):
        """The close code, or None if there was none."""
        while True:
            opcode, payload = self.receive()
            if opcode is None:
                return None
            if opcode == 8:
                return int.from_bytes(payload[:2], "big") if payload else 1005


async def by_hand(work, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)
