#!/usr/bin/python3
"""gRPC's interop cases with grpcio as the client: one line for each, with what came back. `interop.py host:port`"""
import queue
import sys

import grpc

SERVICE = "grpc.testing.TestService"
ECHO_INITIAL, ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def number(field, value):
    return varint(field << 3) + varint(value)


def nested(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(data):
    """The fields of a message by number; of repeated ones the last. Only varints and lengths occur here."""
    found, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        found[key >> 3] = value
    return found


def payload(size):
    return nested(2, bytes(size))


def simple(response, request):
    """SimpleRequest: so many bytes back for so many."""
    return number(2, response) + nested(3, payload(request))


def streaming(response, request):
    """StreamingOutputCallRequest with one answer."""
    return nested(2, number(1, response)) + nested(3, payload(request))


def with_status(code, message):
    return nested(7, number(1, code) + nested(2, message.encode()))


def body_length(response):
    return len(fields(fields(response).get(1, b"")).get(2, b""))


def failed(call):
    """What a call that must fail says."""
    try:
        call()
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()!r}"
    return "no error"


class Cases:
    def __init__(self, channel):
        self.unary = lambda name: channel.unary_unary(f"/{SERVICE}/{name}")
        self.output = channel.unary_stream(f"/{SERVICE}/StreamingOutputCall")
        self.input = channel.stream_unary(f"/{SERVICE}/StreamingInputCall")
        self.duplex = channel.stream_stream(f"/{SERVICE}/FullDuplexCall")

    def empty_unary(self):
        return len(self.unary("EmptyCall")(b"", timeout=20))

    def large_unary(self):
        return body_length(self.unary("UnaryCall")(simple(314159, 271828), timeout=20))

    def client_streaming(self):
        requests = (nested(1, payload(size)) for size in (27182, 8, 1828, 45904))
        return fields(self.input(requests, timeout=20))[1]

    def server_streaming(self):
        request = b"".join(nested(2, number(1, size)) for size in (31415, 9, 2653, 58979))
        return [body_length(response) for response in self.output(request, timeout=20)]

    def ping_pong(self):
        """Each request is made when the answer to the one before is there."""
        requests, answers = queue.Queue(), []
        calls = self.duplex(iter(requests.get, None), timeout=20)
        for sizes in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904)):
            requests.put(streaming(*sizes))
            answers.append(body_length(next(calls)))
        requests.put(None)
        return answers, list(calls)

    def empty_stream(self):
        return list(self.duplex(iter([]), timeout=20))

    def custom_metadata(self):
        metadata = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
        _, call = self.unary("UnaryCall").with_call(simple(1, 1), timeout=20, metadata=metadata)
        return dict(call.initial_metadata())[ECHO_INITIAL], dict(call.trailing_metadata())[ECHO_TRAILING]

    def status_code_and_message(self):
        return failed(lambda: self.unary("UnaryCall")(with_status(2, "test status message"), timeout=20))

    def special_status_message(self):
        return failed(lambda: self.unary("UnaryCall")(with_status(2, SPECIAL), timeout=20))

    def unimplemented_method(self):
        return failed(lambda: self.unary("UnimplementedCall")(b"", timeout=20)).split()[0]

    def cancel_after_first_response(self):
        call = self.output(streaming(31415, 8) + nested(2, number(1, 9) + number(2, 30_000_000)), timeout=20)
        first = body_length(next(call))
        call.cancel()
        return first, failed(lambda: next(call)).split()[0]

    def timeout_on_sleeping_server(self):
        request = nested(2, number(1, 1) + number(2, 30_000_000))
        return failed(lambda: next(self.output(request, timeout=0.05))).split()[0]


if __name__ == "__main__":
    # The name of another machine's proxy in the environment must not matter.
    with grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
        cases = Cases(channel)
        for name in [name for name in dir(cases) if name in vars(Cases) and not name.startswith("_")]:
            print(f"{name}: {getattr(cases, name)()!r}", flush=True)
