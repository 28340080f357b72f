"""Shell completion is click's own; it reaches the commands and the bare form's options."""

import os
import subprocess
import sys

import pytest

CODE = "import sys; sys.argv[0] = 'swaa-convert'; from swaa_convert.cli import main; main()"


def completed(kind: str, line: str = "") -> str:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(max(len(line.split(" ")) - 1, 0))}
    env = {**os.environ, "_SWAA_CONVERT_COMPLETE": kind, **words}
    return subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("shell", "said"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no-")])
def test_script(shell: str, said: str) -> None:
    script = completed(f"{shell}_source")
    assert said in script
    assert f"_SWAA_CONVERT_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("swaa-convert ver", "plain,verify"),
        ("swaa-convert recipes im", "plain,import"),
        ("swaa-convert Qwen/Qwen3-8B --interl", "plain,--interleave"),
        ("swaa-convert convert Qwen/Qwen3-8B --interl", "plain,--interleave"),
    ],
)
def test_words(line: str, offered: str) -> None:
    assert completed("bash_complete", line).split() == [offered]
