"""What examples/serving-with-vllm shows, as it stands there."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.embed import Zoo
from tests.vllm.engine import SHAPE
from tests.vllm.test_server import OPTIONS, server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "examples" / "serving-with-vllm" / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert found
    return found[1]


def test_memory() -> None:
    """The command under Memory, for the rows that release KV, gives what the page says; the source's is arithmetic."""
    command = re.search(r"^    (VLLM_CPU_KVCACHE_SPACE=4 python .*\\\n.*)\n", PAGE, re.M)
    assert command
    full, names = 4 * 2**30 // (4 * 2 * 8 * 128 * 2), ("no FA decode, half full", "no FA decode, none full")
    given = command[1] + "".join(f" --only '{name}'" for name in names)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(given, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0].removeprefix("| ") for row in rows] == list(names)
    for name, row in zip(names, rows, strict=True):
        gained = int(row[2].replace(",", "")) / full
        assert row[2] in PAGE and f"| {name} | {gained:.3g}x |" in PAGE


def test_offline(zoo: Zoo, tmp_path: Path) -> None:
    script = tmp_path / "offline.py"
    # On a CPU vLLM takes nearly all memory unless told otherwise, and won't start where others use some.
    asked = f'LLM("{zoo.repo(config=SHAPE)}", gpu_memory_utilization=0.1)'
    script.write_text(_block("python").replace('LLM("./q3-swaa")', asked), encoding="utf-8")
    # vLLM 0.32 divides by the time that a progress bar counted, which one that is switched off doesn't.
    env = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


def test_server(zoo: Zoo) -> None:
    repo = zoo.repo(config=SHAPE)
    body = re.search(r"-d '(.*)'", _block("sh"))
    assert body
    asked = json.loads(body[1].replace("./q3-swaa", str(repo)))
    with server(repo, *OPTIONS) as address:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/v1/completions", json.dumps(asked).encode(), headers)
        answer = json.load(urllib.request.urlopen(request, timeout=120))
    assert answer["usage"]["completion_tokens"] > 0
