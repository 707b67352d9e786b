"""A web server on the loopback that misbehaves as asked: drops connections, ignores ranges, lies about lengths."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Served:
    """What a server has, how it misbehaves, and what it was asked.

    Attributes:
        files: content by path.
        faults: by path, a set of: "drop" (each answer stops after ``drop_after`` bytes), "drop once", "no range",
            "no head", "long" (promises more than there is), "busy once" (503), "busy" (always), "wrong sum",
            "wrong sum once", "changes" (a new version on each request), "no length", "html", "slow", "redirect".
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, set[str]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.ranges: list[tuple[str, str]] = []
        self.drop_after = 50_000
        self.pause_s = 0.0
        self.url = ""


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, head: bool) -> None:
            method, path = ("HEAD" if head else "GET"), self.path
            served.asked[method, path] += 1
            faults = served.faults.get(path, set())
            if path.startswith("/moved/"):
                digest = hashlib.sha256(served.files[path.removeprefix("/moved")]).hexdigest()
                self._send(302, {"Location": path.removeprefix("/moved"), "X-Linked-Etag": f'"{digest}"'}, b"")
                return
            if path not in served.files or (head and "no head" in faults):
                self._send(405 if path in served.files else 404, {}, b"")
                return
            if "busy" in faults or ("busy once" in faults and served.asked["GET", path] == 1 and not head):
                self._send(503, {"Retry-After": "0"}, b"")
                return
            body = served.files[path]
            if "changes" in faults:
                body = body[:-1] + bytes([served.asked["GET", path] % 256])
            digest = hashlib.sha256(body).digest()
            if "wrong sum" in faults or ("wrong sum once" in faults and served.asked["GET", path] <= 1):
                digest = hashlib.sha256(b"other").digest()
            headers = {
                "ETag": f'"{hashlib.sha1(body).hexdigest()}"',
                "Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
            }
            start = 0
            asked = self.headers.get("Range")
            if asked and not head:
                served.ranges.append((path, asked))
                start = int(asked.removeprefix("bytes=").split("-")[0])
                if "no range" in faults or self.headers.get("If-Range") != headers["ETag"]:
                    start = 0
                elif start >= len(body):
                    self._send(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
                    return
            status = 206 if start else 200
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._send(status, headers, body[start:], faults, head)

        def _send(
            self,
            status: int,
            headers: dict[str, str],
            body: bytes,
            faults: set[str] = frozenset(),  # type: ignore[assignment]
            head: bool = False,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            length = len(body) + (1000 if "long" in faults else 0)
            if "no length" in faults:
                self.send_header("Connection", "close")
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if head or self.command == "HEAD":
                return
            drops = "drop" in faults or ("drop once" in faults and served.asked["GET", self.path] == 1)
            end = served.drop_after if drops else len(body)
            for at in range(0, min(end, len(body)), 10_000):
                piece = body[at : min(at + 10_000, end)]
                try:
                    self.wfile.write(piece)
                    self.wfile.flush()
                except OSError:
                    return
                served.sent[self.path] += len(piece)
                if served.pause_s:
                    threading.Event().wait(served.pause_s)
            if drops or "long" in faults:
                self.close_connection = True
                self.connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
