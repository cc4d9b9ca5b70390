#!/usr/bin/python3
"""Autobahn's WebSocket test cases against an echo server, and such a server.

`autobahn.py serve PORT` echoes. `autobahn.py run DIR HOST:PORT [CASE-PREFIX...]` reads the cases of the suite that was
unpacked in DIR and prints one line for each: its number, how it behaved, how it closed, and the peer's close code.

The suite's own client runs on Python 2.7 only, which no current system has. Its cases are plain classes that talk to a
connection; this is such a connection. To a case the bytes of a frame are a `str` of the same numbers, as in Python 2.
"""
import asyncio
import base64
import builtins
import hashlib
import os
import re
import struct
import sys
import types
import zlib
from collections import Counter

# The suite's own limits suit an idle machine: they only bound what a peer fails to do, so they may be longer.
PATIENCE = 8
AT_ONCE = 24
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE, PING, PONG = 8, 9, 10


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else bytes(text)


def masked(payload, key):
    """RFC 6455 section 5.3, as one long number: byte by byte is too slow for mebibytes."""
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")


class Offer:
    """permessage-deflate as a client offers it (RFC 7692 section 7.1)."""

    def __init__(self, requestNoContextTakeover=False, requestMaxWindowBits=0):
        self.requestNoContextTakeover = requestNoContextTakeover
        self.requestMaxWindowBits = requestMaxWindowBits

    def __str__(self):
        text = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
        if self.requestNoContextTakeover:
            text += "; server_no_context_takeover"
        if self.requestMaxWindowBits:
            text += f"; server_max_window_bits={self.requestMaxWindowBits}"
        return text


class Deflate:
    """permessage-deflate as it was agreed on."""

    TAIL = b"\0\0\xff\xff"

    def __init__(self, agreed):
        self.forgets = {side: f"{side}_no_context_takeover" in agreed for side in ("client", "server")}
        bits = {side: re.search(rf"{side}_max_window_bits=(\d+)", agreed) for side in self.forgets}
        self.bits = {side: int(found[1]) if found else 15 for side, found in bits.items()}
        self.deflater = self.inflater = None

    def compress(self, data):
        if self.deflater is None or self.forgets["client"]:
            # zlib's window of 8 bits does not work for raw streams; the next one is as good for the peer.
            self.deflater = zlib.compressobj(wbits=-max(self.bits["client"], 9))
        out = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        return out.removesuffix(self.TAIL)

    def decompress(self, data):
        if self.inflater is None or self.forgets["server"]:
            self.inflater = zlib.decompressobj(wbits=-self.bits["server"])
        return self.inflater.decompress(data + self.TAIL)


class Utf8Validator:
    """Says of a whole text what the suite's says of one that goes on: valid so far, and complete."""

    def reset(self):
        pass

    def validate(self, text):
        try:
            to_bytes(text).decode()
        except UnicodeDecodeError:
            return False, False
        return True, True


class Connection(asyncio.Protocol):
    """A client's connection as cases know it; the names that they use are the suite's."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_GOING_AWAY = 1001
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007
    factory = types.SimpleNamespace(isServer=False)

    def __init__(self, case_class, host):
        self.host, self.done = host, asyncio.get_running_loop().create_future()
        self.state, self.buffer, self.timers, self.outgoing = self.STATE_CONNECTING, bytearray(), [], bytearray()
        self.createWirelog, self.autoFragmentSize = True, 0
        self.txFrameStats, self.trafficStats = Counter(), None
        self.message = None
        self.perMessageCompressionOffers, self._perMessageCompress = [], None
        self.connectionWasOpen = self.closedByMe = self.droppedByMe = self.failedByMe = self.wasClean = False
        self.remoteCloseCode = self.localCloseReason = None
        self.takes_bytes = hasattr(case_class, "CLIENT_OFFERS")
        self.case = case_class(self)

    # What asyncio calls.

    def connection_made(self, transport):
        self.transport, self.key = transport, base64.b64encode(os.urandom(16))
        offers = "".join(f"sec-websocket-extensions: {offer}\r\n" for offer in self.perMessageCompressionOffers)
        transport.write(
            f"GET / HTTP/1.1\r\nhost: {self.host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {self.key.decode()}\r\nsec-websocket-version: 13\r\n{offers}\r\n".encode()
        )

    def data_received(self, data):
        self.buffer += data
        if self.state == self.STATE_CONNECTING:
            self.read_answer()
        while self.state in (self.STATE_OPEN, self.STATE_CLOSING) and self.read_frame():
            pass

    def connection_lost(self, error):
        for timer in self.timers:
            timer.cancel()
        self.state = self.STATE_CLOSED
        self.case.onClose(self.wasClean, self.remoteCloseCode, None)
        self.case.onConnectionLost(self.failedByMe)
        self.done.set_result(self.case)

    # What arrives.

    def read_answer(self):
        head, end, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not end:
            return
        self.buffer = bytearray(rest)
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        accept = base64.b64encode(hashlib.sha1(self.key + GUID).digest()).decode()
        if not lines[0].startswith("HTTP/1.1 101 ") or headers.get("sec-websocket-accept") != accept:
            self.transport.abort()
            return
        if "sec-websocket-extensions" in headers:
            self._perMessageCompress = Deflate(headers["sec-websocket-extensions"])
        self.state, self.connectionWasOpen = self.STATE_OPEN, True
        self.case.onOpen()

    def read_frame(self):
        """Takes one frame out of the buffer; whether there was one."""
        if len(self.buffer) < 2:
            return False
        first, second = self.buffer[:2]
        length, start = second & 127, 2
        if length > 125:
            size, form = (2, "!H") if length == 126 else (8, "!Q")
            if len(self.buffer) < 2 + size:
                return False
            (length,), start = struct.unpack_from(form, self.buffer, 2), 2 + size
        if len(self.buffer) < start + length:
            return False
        payload = bytes(self.buffer[start : start + length])
        del self.buffer[: start + length]
        self.frame(first, second, payload)
        return True

    def frame(self, first, second, payload):
        fin, rsv, opcode = first & 128, first >> 4 & 7, first & 15
        compressed = rsv == 4 and self._perMessageCompress and opcode in (1, 2)
        if second & 128 or rsv and not compressed or opcode > CLOSE and (not fin or len(payload) > 125):
            self.fail(self.CLOSE_STATUS_CODE_PROTOCOL_ERROR)
        elif opcode == CLOSE:
            self.close_frame(payload)
        elif opcode in (PING, PONG):
            if opcode == PING:
                self.sendFrame(PONG, payload)
            (self.case.onPing if opcode == PING else self.case.onPong)(self.for_case(payload))
        elif opcode > 2 or (opcode == 0) == (self.message is None):
            self.fail(self.CLOSE_STATUS_CODE_PROTOCOL_ERROR)
        else:
            self.message = self.message or (opcode, compressed, bytearray())
            self.message[2].extend(payload)
            if fin:
                self.end_of_message()

    def end_of_message(self):
        (opcode, compressed, data), self.message = self.message, None
        data = self._perMessageCompress.decompress(bytes(data)) if compressed else bytes(data)
        try:
            opcode == 2 or data.decode()
        except UnicodeDecodeError:
            self.fail(self.CLOSE_STATUS_CODE_INVALID_PAYLOAD)
            return
        if not self.failedByMe:
            self.case.onMessage(self.for_case(data), opcode == 2)

    def close_frame(self, payload):
        if payload:
            self.remoteCloseCode = int.from_bytes(payload[:2], "big")
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(self.CLOSE_STATUS_CODE_NORMAL, is_reply=True)
        self.wasClean = True
        # It is the server that ends the connection (RFC 6455 section 7.1.1).
        self.later(PATIENCE, self.drop)

    def for_case(self, data):
        return data if self.takes_bytes else data.decode("latin-1")

    # What cases do.

    def sendFrame(
        self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False
    ):
        payload = to_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        self.txFrameStats[opcode] += 1
        key = os.urandom(4)
        frame = self.head(opcode, fin, rsv, len(payload), key) + masked(payload, key)
        step = chopsize or len(frame)
        for at in range(0, len(frame), step):
            self.transport.write(frame[at : at + step])

    @staticmethod
    def head(opcode, fin, rsv, length, key):
        first = (128 if fin else 0) | rsv << 4 | opcode
        if length < 126:
            return struct.pack("!BB", first, 128 | length) + key
        if length < 65536:
            return struct.pack("!BBH", first, 128 | 126, length) + key
        return struct.pack("!BBQ", first, 128 | 127, length) + key

    def sendMessage(self, payload, isBinary=False, fragmentSize=None):
        payload, rsv = to_bytes(payload), 0
        if self._perMessageCompress:
            payload, rsv = self._perMessageCompress.compress(payload), 4
        size = fragmentSize or self.autoFragmentSize or len(payload) or 1
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for number, part in enumerate(parts):
            opcode = 0 if number else 2 if isBinary else 1
            self.sendFrame(opcode, part, fin=number == len(parts) - 1, rsv=0 if number else rsv)

    def sendClose(self, code=None, reason=""):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8="", is_reply=False):
        if self.state != self.STATE_OPEN:
            return
        code_bytes = b"" if code is None else struct.pack("!H", code)
        self.sendFrame(CLOSE, code_bytes + to_bytes(reasonUtf8))
        self.state, self.closedByMe, self.localCloseReason = self.STATE_CLOSING, not is_reply, reasonUtf8
        self.later(PATIENCE, self.drop)

    def beginMessage(self):
        """A message in frames whose payload comes in parts; cases send only one such frame, of text."""

    def beginMessageFrame(self, length):
        self.mask = os.urandom(4)
        self.transport.write(self.head(1, True, 0, length, self.mask))

    def sendMessageFrameData(self, payload, sync=False):
        payload = to_bytes(payload)
        self.transport.write(masked(payload, self.mask))
        turn = len(payload) % 4
        self.mask = self.mask[turn:] + self.mask[:turn]

    def endMessage(self):
        """The frame before was the last one."""

    def killAfter(self, seconds):
        self.later(seconds * PATIENCE, self.fail)

    def closeAfter(self, seconds):
        self.later(seconds * PATIENCE if seconds > 1 else seconds, self.sendClose)

    def continueLater(self, seconds, then, tag=None):
        self.later(seconds, then)

    def enableWirelog(self, enable):
        """Nothing is logged."""

    # Ends.

    def later(self, seconds, then):
        def unless_closed():
            if self.state != self.STATE_CLOSED:
                then()

        self.timers.append(asyncio.get_running_loop().call_later(seconds, unless_closed))

    def fail(self, code=CLOSE_STATUS_CODE_GOING_AWAY):
        self.failedByMe = True
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code)
        else:
            self.drop()

    def drop(self):
        """Ends the TCP connection, which the server should have done."""
        self.droppedByMe, self.wasClean, self.state = True, False, self.STATE_CLOSED
        self.transport.abort()


class Suite:
    """The suite's modules, executed with what they import of Python 2 and of its libraries replaced."""

    def __init__(self, root):
        self.root, self.modules = os.path.join(root, "autobahntestsuite"), {}
        agreement = {f"PerMessageDeflate{name}": object for name in ("OfferAccept", "Response", "ResponseAccept")}
        self.stand_ins = {
            "autobahn.websocket.protocol": {"WebSocketProtocol": Connection},
            "autobahn.websocket.compress": {"PerMessageDeflateOffer": Offer, **agreement},
            "autobahn.websocket.utf8validator": {"Utf8Validator": Utf8Validator},
            "binascii": {"b2a_hex": lambda text: to_bytes(text).hex(), "hexlify": bytes.hex},
            "pkg_resources": {"resource_filename": lambda _, path: os.path.join(self.root, path)},
            # Endless by design, and not in the list of cases.
            "case9_9_1": {},
        }
        self.cases = self.module("__init__").Cases
        # The suite compares how values are pickled.
        self.module("case").Case.compare = lambda self, a, b: a == b

    def module(self, name):
        if name not in self.modules:
            with open(os.path.join(self.root, "case", f"{name}.py"), encoding="latin-1") as file:
                source = file.read().replace(" / ", " // ").replace("(object, Case, )", "(Case, )")
            source = re.sub(r"^(\s*)print\b.*", r"\1pass", source, flags=re.M)
            imported = {"__import__": self.imported, "xrange": range, "unichr": chr}
            module = self.modules[name] = types.ModuleType(name)
            module.__dict__["__builtins__"] = {**vars(builtins), **imported}
            exec(compile(source, name, "exec"), module.__dict__)
        return self.modules[name]

    def imported(self, name, globals=None, locals=None, fromlist=(), level=0):
        if name in self.stand_ins:
            return types.SimpleNamespace(**self.stand_ins[name])
        if name.startswith("case"):
            return self.module(name)
        return __import__(name, globals, locals, fromlist, level)


def number(case):
    return case.__name__.removeprefix("Case").replace("_", ".")


async def run(root, address, prefixes):
    cases = [case for case in Suite(root).cases if any(f"{number(case)}.".startswith(p) for p in prefixes or [""])]
    host, _, port = address.rpartition(":")
    places = asyncio.Semaphore(AT_ONCE)

    async def one(case):
        async with places:
            connect = asyncio.get_running_loop().create_connection
            _, connection = await connect(lambda: Connection(case, address), host, int(port))
            return await connection.done, connection.remoteCloseCode

    for case, (done, code) in zip(cases, await asyncio.gather(*map(one, cases))):
        print(number(case), done.behavior, done.behaviorClose, code, sep="\t")


async def serve(port):
    import websockets

    async def echo(socket, path=None):
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, "0.0.0.0", port, max_size=None, ping_interval=None):
        print("serving", flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(run(sys.argv[2], sys.argv[3], sys.argv[4:]))
