#!/usr/bin/python3
"""A gRPC service and its client, with bytes for messages: unary, server streaming, both streaming, and a failure."""
import queue
import signal
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "demo.Greeter"


def who(context):
    return dict(context.invocation_metadata()).get("l5d-client-id", "nobody known")


def hello(request, context):
    return b"hello " + request + b", you are " + who(context).encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def chat(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked to"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def call(address):
    """Prints one line per kind of call: what came back."""
    # The name of another machine's proxy in the environment must not matter.
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Hello")
        print("unary:", unary(b"mesh", timeout=20).decode())
        counted = channel.unary_stream(f"/{SERVICE}/Count")(b"5", timeout=20)
        print("server streaming:", " ".join(reply.decode() for reply in counted))
        words = iter([b"here", b"and", b"back"])
        chatted = channel.stream_stream(f"/{SERVICE}/Chat")(words, timeout=20)
        print("both streaming:", " ".join(reply.decode() for reply in chatted))
        try:
            channel.unary_unary(f"/{SERVICE}/Fail")(b"on purpose", timeout=20)
        except grpc.RpcError as error:
            print("failure:", error.code().name, error.details(), dict(error.trailing_metadata()).get("x-why"))


def chat_at_length(address, count):
    """Sends each message when the one before has come back; prints how many did."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        words = queue.SimpleQueue()
        words.put(b"word")
        replies = 0
        for reply in channel.stream_stream(f"/{SERVICE}/Chat")(iter(words.get, None), timeout=60):
            replies += reply == b"WORD"
            words.put(b"word" if replies < count else None)
        print(replies)


def call_and_cancel(address, count):
    """Gives each call up when its first reply has come; prints how many came."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        replies = 0
        for _ in range(count):
            counting = channel.unary_stream(f"/{SERVICE}/Count")(b"1000000", timeout=20)
            replies += next(counting) == b"0"
            counting.cancel()
        print(replies)


def keep_calling(address):
    """Calls twenty times a second until SIGTERM; fails if a call did, and prints why."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    answered = failed = 0
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Hello")
        while not ended.wait(0.05):
            try:
                unary(b"mesh", timeout=20)
                answered += 1
            except grpc.RpcError as error:
                failed += 1
                print("failed:", error.code().name, error.details(), flush=True)
            if answered == 1:
                print("calling", flush=True)
    print("answered", answered, "failed", failed, flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    elif sys.argv[1] == "chat":
        chat_at_length(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "keep-calling":
        keep_calling(sys.argv[2])
    elif sys.argv[1] == "cancel":
        call_and_cancel(sys.argv[2], int(sys.argv[3]))
    else:
        call(sys.argv[2])
