"""grpcio as an xDS client: makes the calls that it is told to, one JSON object per line.

    grpcio_client.py TARGET        (the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG)

stdin   {"method": "/pkg.Service/Method", "shape": "unary_unary", "requests": ["hex"], "metadata": {}, "timeout": 5}
stdout  {"code": "OK", "details": "", "replies": ["hex"]}

Messages are bytes: what is in them is the business of whoever gives the commands.
"""

import json
import sys

import grpc
import grpc.experimental


def perform(channel, command):
    """Makes one call of any of gRPC's four shapes and tells how it ended."""
    sends, receives = command["shape"].split("_")
    requests = [bytes.fromhex(request) for request in command["requests"]]
    start = getattr(channel, command["shape"])(command["method"])
    if receives == "unary":
        start = start.future
    call = start(
        iter(requests) if sends == "stream" else requests[0],
        timeout=command["timeout"],
        metadata=list(command["metadata"].items()),
    )
    replies = []
    try:
        replies.extend(call if receives == "stream" else [call.result()])
    except grpc.RpcError:
        pass  # the code below says it
    return {"code": call.code().name, "details": call.details(), "replies": [reply.hex() for reply in replies]}


def main():
    # Falls back to plaintext where the cluster has no transport socket: security is the control plane's decision.
    credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
    with grpc.secure_channel(sys.argv[1], credentials) as channel:
        # Ask the control plane now, not at the first call.
        channel.subscribe(lambda state: None, try_to_connect=True)
        for line in sys.stdin:
            print(json.dumps(perform(channel, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
