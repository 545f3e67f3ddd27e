"""grpcio as the client of the scale rows: obeys the orders of xds/mod.rs, one JSON value per line.

    grpcio_client.py TARGET CLUSTERS        (the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG)

Live bytes are the growth of the resident set: the core has no counting allocator.
"""

import json
import sys
import time

import grpc
import grpc.experimental

PATIENCE = 60


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


class Client:
    def __init__(self, target, clusters):
        self.target, self.clusters, self.channel = target, clusters, None

    def call(self, cluster):
        method = self.channel.unary_unary(f"/c{cluster}.Echo/Unary")
        method(b"", timeout=PATIENCE, wait_for_ready=False)

    def start(self):
        before, began = resident(), time.perf_counter_ns()
        credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
        self.channel = grpc.secure_channel(self.target, credentials)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.call(self.clusters - 1)
                break
            except grpc.RpcError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.001)
        ready = time.perf_counter_ns() - began
        time.sleep(0.2)
        return {"ready_ns": ready, "live_bytes": resident() - before}

    def load(self, ms, clusters):
        until = time.monotonic() + ms / 1000
        loaded = {"calls": 0, "failed": 0, "error": None}
        while time.monotonic() < until:
            try:
                self.call(loaded["calls"] % max(clusters, 1))
            except grpc.RpcError as error:
                loaded["failed"] += 1
                loaded["error"] = loaded["error"] or f"{error.code().name}: {error.details()}"
            loaded["calls"] += 1
        return loaded

    def obey(self, order):
        if order == "Start":
            return self.start()
        if "Load" in order:
            return self.load(**order["Load"])
        time.sleep(order["Idle"]["ms"] / 1000)
        return time.process_time_ns()


def main():
    client = Client(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(client.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
