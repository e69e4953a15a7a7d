"""A server of Weights & Biases as far as a run needs one. It keeps what it was asked."""

import base64
import contextlib
import http.server
import json
import re
import threading

# What a run asks for, by a word of the query, and what it is answered.
ANSWERS = {
    "upsertBucket": lambda v: {
        "upsertBucket": {
            "inserted": True,
            "bucket": {
                "id": "UnVuOjE=", "name": v["name"], "displayName": v.get("displayName"), "description": None, "config": "{}",
                "sweepName": None, "historyLineCount": 0,
                "project": {"id": "UDox", "name": v["project"], "entity": {"id": "RTox", "name": v.get("entity") or "ada"}},
            },
        }
    },
    "createRunFiles": lambda v: {"createRunFiles": {"runID": "UnVuOjE=", "uploadHeaders": [], "files": []}},
}
STREAM = re.compile(r"^/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        if self.path != "/graphql" and not STREAM.match(self.path):
            return self.send_error(404)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        scheme, _, given = self.headers["authorization"].partition(" ")
        user, _, key = base64.b64decode(given).decode().partition(":")
        asked = {"path": self.path, "auth": (scheme, user, key), "type": self.headers["content-type"], "body": body}
        self.server.asked.append(asked)
        answer = {"exitcode": None, "limits": {}}
        if self.path == "/graphql":
            word = next((word for word in ANSWERS if word in body["query"]), None)
            answer = {"data": ANSWERS[word](body["variables"]) if word else {}}
        answer = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def made(self, name):
        """The requests that made or changed the run of this name."""
        upserts = [each for each in self.asked if "upsertBucket" in each["body"].get("query", "")]
        return [each for each in upserts if each["body"]["variables"]["name"] == name]

    def streamed(self, name):
        """The requests that added to its files."""
        return [each for each in self.asked if (found := STREAM.match(each["path"])) and found[3] == name]

    def lines(self, name, file):
        """The lines of one of its files, each written where its request said."""
        lines = []
        for each in self.streamed(name):
            part = each["body"].get("files", {}).get(file)
            if part:
                assert part["offset"] <= len(lines)
                lines[part["offset"]:] = [json.loads(line) for line in part["content"]]
        return lines


@contextlib.contextmanager
def listening():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
