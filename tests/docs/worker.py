"""One page's blocks, run in order in one process: `python -m tests.docs.worker STEPS.json RESULT.json`."""

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from swaa_convert.cli import cli


def main(steps: str, result: str) -> None:
    """Runs until a step fails; writes how each ended and what it printed."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    said: list[dict[str, Any]] = []
    for step in json.loads(Path(steps).read_text(encoding="utf-8")):
        status, output = _run(step, namespace)
        said.append({**step, "status": status, "output": output})
        if status:
            break
    Path(result).write_text(json.dumps(said), encoding="utf-8")


def _run(step: dict[str, Any], namespace: dict[str, Any]) -> tuple[int, str]:
    """(exit status, output)"""
    if step["kind"] == "swaa":
        done = CliRunner().invoke(cli, step["args"])
        return done.exit_code, done.output
    if step["kind"] == "shell":
        shell = subprocess.run(["bash", "-c", step["text"]], capture_output=True, text=True, timeout=240)
        return shell.returncode, shell.stdout + shell.stderr
    try:
        # With the page's own line numbers.
        exec(compile("\n" * step["line"] + step["text"], "page", "exec"), namespace)
    except Exception:
        return 1, traceback.format_exc()
    return 0, ""


if __name__ == "__main__":
    main(*sys.argv[1:])
