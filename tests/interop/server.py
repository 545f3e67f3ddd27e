"""A gRPC server of another implementation, configured over xDS: echoes a text, says its name and who called.

usage: server.py ADDRESS plaintext|mtls
Prints `started`, and runs until its standard input ends.
"""

import sys
from concurrent import futures

import grpc


def field(number, value):
    """A length-delimited protobuf field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value


def text_of(request):
    """The first field of the request, a short string."""
    return request[2 : 2 + request[1]] if request[:1] == b"\x0a" else b""


def echo(request, context):
    peer = (context.peer_identities() or [b""])[0]
    return field(1, text_of(request)) + field(2, b"grpcio") + field(3, peer)


def main():
    address, security = sys.argv[1], sys.argv[2]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), xds=True)
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("mesh.test.Echo", {"Unary": handler}),)
    )
    if security == "mtls":
        fallback = grpc.insecure_server_credentials()
        server.add_secure_port(address, grpc.xds_server_credentials(fallback))
    else:
        server.add_insecure_port(address)
    server.start()
    print("started", flush=True)
    sys.stdin.read()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
