"""Sets up swaa-convert in .venv and runs it on the demo checkpoint: `python examples/quickstart.py`.

Needs Python and pip, nothing else. Converts examples/needle-qwen3 to ./needle-swaa, says what came out, and then
measures what each of SWAA's methods does for it.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "needle-swaa"


def main() -> None:
    folder = ROOT / ".venv"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    if not scripts.exists():
        venv.create(folder, with_pip=True)
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*install, os.environ.get("SWAA_TORCH", "torch==2.13.0"))
    run(*install, "--editable", f"{ROOT}[plots]")
    convert = scripts / "swaa-convert"
    run(convert, ROOT / "examples/needle-qwen3", "--window", "64", "--keep-first", "4", "--out", OUT, "--force")
    run(convert, "inspect", OUT, "--lengths", "1024,2048")
    run(convert, "demo")


def run(*command: object) -> None:
    print("$", *(os.path.relpath(part) if isinstance(part, Path) else part for part in command), flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
