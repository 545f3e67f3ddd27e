"""A gRPC client of another implementation: calls an `xds:///` target and says what became of each call.

usage: client.py TARGET plaintext|mtls CALLS
One line of JSON for each call: {"code": "OK", "reply": "<hex>"}.
"""

import json
import sys

import grpc
import grpc.experimental


def main():
    target, security, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if security == "mtls":
        fallback = grpc.experimental.insecure_channel_credentials()
        channel = grpc.secure_channel(target, grpc.xds_channel_credentials(fallback))
    else:
        channel = grpc.insecure_channel(target)
    with channel:
        unary = channel.unary_unary("/mesh.test.Echo/Unary")
        for number in range(calls):
            text = b"call %d" % number
            try:
                reply = unary(b"\x0a" + bytes([len(text)]) + text, timeout=15)
                outcome = {"code": "OK", "reply": reply.hex()}
            except grpc.RpcError as error:
                outcome = {"code": error.code().name, "details": error.details()}
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
