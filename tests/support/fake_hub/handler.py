"""HTTP for the fake Hub: requests in, answers out, and what goes wrong in between."""

import io
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.fake_hub import reading, writing
from tests.support.fake_hub.hub import FakeHub

_PIECE = 16 * 1024


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"
    # Head and body go out together: apart, each answer waits 40 ms for the client's acknowledgement.
    wbufsize = _PIECE
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(reading.answer)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(writing.answer)

    do_PUT = do_POST

    @property
    def account(self) -> dict[str, Any] | None:
        """Who asks."""
        return self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def parts(self) -> list[str]:
        """The path's parts, still quoted: a revision may hold a slash."""
        return urlsplit(self.path).path.strip("/").split("/")

    def _answer(self, answer: Any) -> None:
        request = f"{self.command} {urlsplit(self.path).path}"
        self.hub.requests.append(request)
        fault = self.hub.fault(request)
        if fault and fault.kind == "hold":
            self.hub.held.set()
            self.hub.released.wait(60)
            return self.cut()
        if fault and fault.kind == "cut":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            return self.cut()
        self.body = self._read()
        if fault and fault.kind == "status":
            return self.send(fault.status, fault.body, fault.headers)
        if fault is None:
            return answer(self)
        heard, self.wfile = self.wfile, io.BytesIO()
        answer(self)
        self.wfile = heard
        self.cut()

    def json(self) -> Any:
        return json.loads(self.body)

    def reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), headers)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = ({"X-Error-Code": code} if code else {}) | ({"X-Error-Message": message} if message else {})
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body) if self.command != "HEAD" else 0, _PIECE):
            self.wfile.write(body[start : start + _PIECE])
            time.sleep(self.hub.pause)

    def break_off(self, data: bytes) -> None:
        """Half of a file, and then nothing."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.hub.released.wait(60)
        self.close_connection = True

    def cut(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._chunk, b""))
        left, pieces = int(self.headers.get("Content-Length", 0)), []
        while left:
            pieces.append(self.rfile.read(min(left, _PIECE)))
            left -= len(pieces[-1])
            time.sleep(self.hub.pause)
        return b"".join(pieces)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, *args: Any) -> None:
        pass
