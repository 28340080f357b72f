"""A Hub on this machine: as much of its HTTP interface as the real client needs to download a model."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class FakeHub:
    """Models by id, each a folder; `answers` overrules by the start of a path: (status, headers).

    In the middle of every file whose name ends with one of `breaks` the connection breaks, as soon as `released`.
    """

    models: dict[str, Path]
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    breaks: tuple[str, ...] = ()
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def downloaded(self) -> set[str]:
        """The files whose bytes were asked for."""
        return {
            line.split("/resolve/")[1].split("/", 1)[1]
            for line in self.requests
            if line.startswith("GET ") and "/resolve/" in line
        }

    def convert(self, home: Path, *args: str | Path, offline: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `swaa-convert` in a process of its own against this Hub, with its cache in `home`."""
        command = [sys.executable, "-m", "swaa_convert", *(str(arg) for arg in args)]
        env = self.environment(home, offline=offline)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    def environment(self, home: Path, *, offline: bool = False) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return env | ({"HF_HUB_OFFLINE": "1"} if offline else {})


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer on a free port of this machine while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for start, (status, headers) in self.hub.answers.items():
            if path.startswith(start):
                return self._send(status, b"{}", headers)
        for name, folder in self.hub.models.items():
            if path in (
                f"/api/models/{name}",
                f"/api/models/{name}/revision/main",
                f"/api/models/{name}/revision/{COMMIT}",
            ):
                return self._send(200, json.dumps(_info(name, folder)).encode())
            if path.startswith(f"/api/models/{name}/tree/"):
                return self._send(200, json.dumps(_tree(folder)).encode())
            if path.startswith(f"/api/models/{name}/revision/"):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if path.startswith(f"/{name}/resolve/"):
                return self._file(folder, path.split("/resolve/")[1].split("/", 1)[1])
        self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _file(self, folder: Path, name: str) -> None:
        path = folder / name
        if not path.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        if self.command == "GET" and name.endswith(self.hub.breaks):
            return self._break_off(data)
        self._send(200, data, {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _break_off(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.hub.released.wait(60)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _info(name: str, folder: Path) -> dict[str, Any]:
    siblings = [
        {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "blobId": _etag(path)}
        for path in _files(folder)
    ]
    return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}


def _tree(folder: Path) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "oid": _etag(path)}
        for path in _files(folder)
    ]
