"""A Kubernetes API server with nothing in it, for an istiod whose configuration comes from files.

kube_api.py HOST:PORT NAMESPACE,…: lists are empty but for the namespaces, watches stay silent, writes are echoed and not
kept. Standard library only.
"""
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

NAMESPACES = sys.argv[2].split(",")


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, reason):
        self.reply(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status})

    def stay_silent(self, seconds):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        time.sleep(seconds)
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        path = url.path.strip("/").split("/")
        if path == ["version"]:
            return self.reply(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        if path == ["apis"]:
            return self.reply(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        if "sendInitialEvents" in query:
            return self.fail(422, "Invalid")  # so that the client lists and then watches
        if "watch" in query:
            return self.stay_silent(float(query.get("timeoutSeconds", ["300"])[0]))
        kind = path[2:] if path[0] == "api" else path[3:]  # what follows the group and its version
        if kind[:1] == ["namespaces"] and len(kind) > 2:
            kind = kind[2:]
        if len(kind) > 1:
            return self.fail(404, "NotFound")
        names = NAMESPACES if kind == ["namespaces"] else []
        found = {"metadata": {"resourceVersion": "1"},
                 "items": [{"metadata": {"name": name, "resourceVersion": "1"}} for name in names]}
        if "PartialObjectMetadataList" in self.headers.get("Accept", ""):
            found |= {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        return self.reply(200, found)

    def echo(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.reply(201 if self.command == "POST" else 200, json.loads(body))
        except ValueError:
            self.fail(415, "UnsupportedMediaType")

    do_POST = do_PUT = do_PATCH = echo


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Api)
    server.daemon_threads = True
    server.serve_forever()
