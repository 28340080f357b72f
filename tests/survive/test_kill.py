"""SIGKILL anywhere: the target does not exist or is whole, the source is untouched, and the next run cleans up.

`SWAA_KILLS=200 pytest tests/survive/test_kill.py` kills at 200 random lines, with `SWAA_KILLS_SEED=N` at others; by
default there are a few.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from swaa_convert.refresh import refresh_code
from tests.support.adapters import make_adapter
from tests.support.command import tree
from tests.support.killed import COMMANDS, options
from tests.support.sources import make_source

KILLS = int(os.environ.get("SWAA_KILLS", len(COMMANDS)))
CHANCE = random.Random(int(os.environ.get("SWAA_KILLS_SEED", 0)))
POINTS = [(COMMANDS[n % len(COMMANDS)], CHANCE.random()) for n in range(KILLS)]

Tree = dict[str, bytes]


def run_killed(line: int, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [str(line), command, str(folder / "source"), str(folder / "out")]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.killed", *arguments], capture_output=True, text=True, timeout=120
    )


class Stage:
    """What stands before a command, and what it makes of it when nobody kills it: made once for all points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_source(folder / "plain/source", "qwen3", shards=2)
        shutil.copytree(folder / "plain", folder / "force")
        convert_checkpoint(folder / "force/source", folder / "force/out", Recipe(window=5), check=False)
        shutil.copytree(folder / "force", folder / "refresh")
        (folder / "refresh/out/swaa_mask.py").write_text("# older\n")
        shutil.copytree(folder / "plain", folder / "lora")
        make_adapter(folder / "lora/source", folder / "lora/adapter")
        self._done: dict[str, tuple[Tree, int]] = {}

    def before(self, command: str) -> Path:
        kind = command.split("-")[0]
        return self.folder / {"link": "plain", "resume": "lora"}.get(kind, kind)

    def done(self, command: str) -> tuple[Tree, int]:
        """(the target's files when the command is done, the lines that ran)."""
        if command not in self._done:
            folder = shutil.copytree(self.before(command), self.folder / f"done-{command}")
            result = run_killed(0, command, folder)
            assert result.returncode == 0, result.stderr
            self._done[command] = tree(folder / "out"), int(result.stdout)
        return self._done[command]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("kill"))


def run_again(command: str, out: Path, source: Path) -> None:
    if command.startswith("refresh"):
        refresh_code(out, check=False)
    else:
        again = options(command, source) | {"force": out.exists()}
        convert_checkpoint(source, out, Recipe(window=9), check=False, **again)


@pytest.mark.parametrize(("command", "chance"), POINTS, ids=[f"{name}-{chance:.4f}" for name, chance in POINTS])
def test_killed(command: str, chance: float, stage: Stage, tmp_path: Path) -> None:
    new, lines = stage.done(command)
    folder = shutil.copytree(stage.before(command), tmp_path / "work")
    source, old = tree(folder / "source"), tree(folder / "out")
    result = run_killed(1 + int(chance * lines), command, folder)
    # Threads don't always run the same number of lines: the last one may not come.
    assert result.returncode in (-signal.SIGKILL, 0), result.stderr
    in_one_step = "two-steps" not in command
    assert (folder / "out").exists() or not (old and in_one_step)
    assert not (folder / "out").exists() or tree(folder / "out") in (old, new)
    run_again(command, folder / "out", folder / "source")
    assert sorted(os.listdir(folder)) == sorted({"out", "source", *os.listdir(stage.before(command))})
    assert (tree(folder / "out"), tree(folder / "source")) == (new, source)
