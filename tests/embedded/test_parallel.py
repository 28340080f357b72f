"""tp_plan="auto": each process holds a part of every layer's heads."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tp_worker
from tests.support.embed import Zoo, two_gpus
from tests.support.oracle import assert_close

pytest.importorskip("torch.distributed.run")
WORKER = Path(tp_worker.__file__)


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _run(repo: Path, out: Path, devices: str = "") -> Any:
    """What two processes computed, or the end of what they said; devices: the GPUs they see, none by default."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}"]
    root = WORKER.parents[2]
    arguments = ["-m", tp_worker.__name__, str(repo), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": devices}
    done = subprocess.run(
        [*command, *arguments], env=environment, cwd=root, capture_output=True, text=True, timeout=240
    )
    return torch.load(out) if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("devices", ["", pytest.param("0,1", marks=two_gpus)], ids=["cpu", "gpus"])
@pytest.mark.parametrize("recipe", [{}, {"full_layers": (), "fa_decode": False}], ids=str)
def test_two_processes(zoo: Zoo, tmp_path: Path, recipe: dict[str, Any], devices: str) -> None:
    found = _run(zoo.repo(**recipe), tmp_path / "swaa.pt", devices)
    assert isinstance(found, dict), found
    assert found["width"] == 64  # of 128: this was not run whole
    oracle = zoo.oracle(**recipe)
    assert_close(found["logits"][0], oracle.logits(tp_worker.IDS))
    assert found["tokens"] == [oracle.greedy(tp_worker.IDS, 8)]
