"""The fake Hub's state, and running `swaa-convert` against it."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.fake_hub.repo import COMMIT, FolderRepo, Repo

__all__ = ["COMMIT"]
TOKEN, READER = "hf_secretsecretsecret", "hf_readerreaderreader"
_USER: dict[str, Any] = {"type": "user", "name": "me", "orgs": [{"name": "lab", "roleInOrg": "write"}]}
# Without the waits between tries.
_MAIN = "import time; time.sleep = lambda seconds: None; from swaa_convert.cli import main; main()"


def _accounts() -> dict[str, dict[str, Any]]:
    roles = {TOKEN: "write", READER: "read"}
    return {token: {**_USER, "auth": {"accessToken": {"role": role}}} for token, role in roles.items()}


@dataclass
class Fault:
    """What goes wrong at a request whose method and path begin like this, the first `times` times.

    `cut`: in the middle of the request's body the connection breaks. `late`: it breaks once the request has had its
    effect. `hold`: nothing happens any more.
    """

    start: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    kind: str = "status"
    times: int = 1000
    skip: int = 0

    def applies(self, request: str) -> bool:
        if not request.startswith(self.start) or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class FakeHub:
    """Repos by id (a folder stands for one with a single commit); `answers` overrules by the start of a path.

    In the middle of every file whose name ends with one of `breaks` the connection breaks, as soon as `released`.
    Large files are taken in parts of `part_size` bytes, if it says so; between parts of what it reads and sends, a
    slow Hub waits `pause` seconds. `xet`: whether it offers xet storage; None: and the client uses none.
    """

    models: dict[str, Path | Repo]
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    breaks: tuple[str, ...] = ()
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    accounts: dict[str, dict[str, Any]] = field(default_factory=_accounts)
    faults: list[Fault] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part_size: int | None = None
    xet: bool | None = None
    xorbs: dict[str, list[bytes]] = field(default_factory=dict)
    pause: float = 0

    def repo(self, name: str) -> Repo | None:
        found = self.models.get(name)
        return FolderRepo(folder=found) if isinstance(found, Path) else found

    def fault(self, request: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.applies(request)), None)

    def downloaded(self) -> set[str]:
        """The files whose bytes were asked for."""
        return {
            line.split("/resolve/")[1].split("/", 1)[1]
            for line in self.requests
            if line.startswith("GET ") and "/resolve/" in line
        }

    def sent(self) -> list[str]:
        """The requests that change something on the Hub, in order."""
        return [line for line in self.requests if line.startswith(("POST", "PUT", "DELETE"))]

    def convert(
        self, home: Path, *args: str | Path, offline: bool = False, token: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `swaa-convert` in a process of its own against this Hub, with its cache in `home`."""
        command = self.command(*args)
        env = self.environment(home, offline=offline, token=token)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    def python(self, home: Path, code: str, *args: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
        """Run Python that knows nothing of swaa-convert against this Hub."""
        env = self.environment(home, offline=offline)
        return subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=120)

    def push(self, home: Path, *args: str | Path, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        """The same for `push-to-hub`, logged in."""
        return self.convert(home, "push-to-hub", *args, token=token)

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-c", _MAIN, *(str(arg) for arg in args)]

    def environment(self, home: Path, *, offline: bool = False, token: str | None = None) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1" if self.xet is None else "0",
            "HF_XET_XORB_COMPRESSION_POLICY": "none",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return env | ({"HF_HUB_OFFLINE": "1"} if offline else {}) | ({"HF_TOKEN": token} if token else {})


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer on a free port of this machine while the block runs."""
    from tests.support.fake_hub.handler import Handler

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
