"""grpcio as an xDS server of `mesh.test.Echo`: what it serves, to whom and how is the control plane's decision.

    grpcio_server.py NAME ADDRESS        (the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG)

stdout  "started", "held" (a call waits for its release), "cancelled" (a held call ended without it), "stopped"
stdin   "release" (held calls go on), "stop" (no new calls; those in flight finish)
"""

import ssl
import sys
import threading
from concurrent import futures

import grpc

GRACE_SECONDS = 20
VARINT, DELIMITED = 0, 2


def say(event):
    sys.stdout.write(event + "\n")
    sys.stdout.flush()


# --- protobuf, as far as Echo needs it ---


def take_varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at


def decode(message):
    """The fields of a message by number: integers or bytes."""
    fields, at = {}, 0
    while at < len(message):
        key, at = take_varint(message, at)
        value, at = take_varint(message, at)
        if key & 7 == DELIMITED:
            value, at = message[at : at + value], at + value
        fields[key >> 3] = value
    return fields


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | DELIMITED) + varint(len(value)) + value


# --- the service ---


class Echo(grpc.GenericRpcHandler):
    TEXT, PAYLOAD, FAIL_WITH, HOLD, REPLIES = 1, 2, 3, 5, 6  # of EchoRequest

    def __init__(self, name):
        self.name = name
        self.released = threading.Event()

    def service(self, details):
        return {
            "/mesh.test.Echo/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/mesh.test.Echo/Upload": grpc.stream_unary_rpc_method_handler(self.upload),
            "/mesh.test.Echo/Download": grpc.unary_stream_rpc_method_handler(self.download),
            "/mesh.test.Echo/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }.get(details.method)

    def unary(self, request, context):
        return self.answer(decode(request), context)

    def upload(self, requests, context):
        received, last = 0, {}
        for request in requests:
            last = decode(request)
            received += len(last.pop(self.PAYLOAD, b""))
        return self.answer(last, context, received)

    def download(self, request, context):
        request = decode(request)
        for _ in range(request.get(self.REPLIES, 0)):
            yield self.answer(request, context)

    def chat(self, requests, context):
        for request in requests:
            yield self.answer(decode(request), context)

    def answer(self, request, context, received=0):
        if request.get(self.HOLD):
            self.hold(context)
        if request.get(self.FAIL_WITH):
            code = next(code for code in grpc.StatusCode if code.value[0] == request[self.FAIL_WITH])
            # C-core 1.85.1 dies (pipe.h: Check failed: has_value()) if an xDS server's handler fails before its headers.
            context.send_initial_metadata(())
            context.abort(code, f"asked to fail by {request[self.TEXT].decode()!r}")
        payload = request.get(self.PAYLOAD, b"")
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        if context.time_remaining() is not None:
            headers["seconds-remaining"] = f"{context.time_remaining():.3f}"
        reply = field(1, request.get(self.TEXT, b"")) + field(2, self.name)
        reply += field(3, authenticated(context, "peer_spiffe_id"))
        if pem := authenticated(context, "x509_pem_cert"):
            reply += field(4, ssl.PEM_cert_to_DER_cert(pem.decode()))
        for key, value in headers.items():
            reply += field(5, field(1, key) + field(2, value))
        return reply + field(7, payload) + field(8, received or len(payload))

    def hold(self, context):
        """Waits for the release, or for the end of the call, whichever comes first."""
        over = threading.Event()
        if not context.add_callback(over.set):
            over.set()
        threading.Thread(target=lambda: (self.released.wait(), over.set()), daemon=True).start()
        say("held")
        over.wait()
        if not self.released.is_set():
            say("cancelled")


def authenticated(context, name):
    """What TLS proved about the caller; empty if nothing."""
    return next(iter(context.auth_context().get(name, [])), b"")


def main():
    name, address = sys.argv[1:]
    echo = Echo(name)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), handlers=[echo], xds=True)
    # Falls back to plaintext where the listener has no transport socket: security is the control plane's decision.
    server.add_secure_port(address, grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    server.start()
    say("started")
    for line in sys.stdin:
        match line.strip():
            case "release":
                echo.released.set()
            case "stop":
                stopping = server.stop(GRACE_SECONDS)
                threading.Thread(target=lambda: (stopping.wait(), say("stopped")), daemon=True).start()
    server.stop(None)


if __name__ == "__main__":
    main()
