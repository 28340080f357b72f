"""Every code block of README and of the pages under examples/ is run, or checked where it can't be."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.docs.blocks import blocks, world
from tests.docs.checks import ROOT, UnknownBlock, check_command, steps
from tests.docs.world import environment, furnish, make_models
from tests.support.fake_hub import FakeHub, serve

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples").rglob("*.md"))]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_blocks(page: Path, models: dict[str, Path], tmp_path: Path) -> None:
    todo = [step for block in blocks(page) for step in steps(block)]
    (tmp_path / "steps.json").write_text(json.dumps(todo))
    with serve(FakeHub(dict(models))) as hub:
        furnish(tmp_path / "page", world(page), hub)
        command = [sys.executable, "-m", "tests.docs.worker", tmp_path / "steps.json", tmp_path / "said.json"]
        env = environment(hub, tmp_path / "home")
        done = subprocess.run(command, env=env, cwd=tmp_path / "page", capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    wrong = [f"{named(page)}:{step['line']}: {step['text']}\n{step['output']}" for step in said if step["status"]]
    assert not wrong, wrong[0]
    assert len(said) == len(todo)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_sentences(page: Path) -> None:
    """They may leave out arguments, but name no command or option that isn't there."""
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"(?<!`)`((?:swaa-convert|pip) [^`]+)`(?!`)", text):
        with contextlib.suppress(click.MissingParameter, click.BadOptionUsage, click.exceptions.Exit):
            check_command(command.replace("…", "").replace("\n", " "))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target.split("#") for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [path for path, *_ in targets if path and not (page.parent / path).exists()]
    assert missing == []


UNKNOWN = {
    "    rm -rf /": "no way is known to run 'rm'",
    "    swaa-convert x --windw 5": "No such option",
    "    swaa-convert inspct x": "no command 'inspct'",
    "    python examples/nothing.py": "No such file",
    "    python examples/bench_merge.py --sise 8": "has no --sise",
    "    pip install '.[plot]'": "no extra 'plot'",
    "```python\nif\n```": "invalid syntax",
    "```yaml\nwindw: 5\n```": "did you mean 'window'",
    "```cobol\n```": "a block in cobol",
    "```\ntext\n```": "a block in no language",
    "<!-- test: sometimes -->\n    cat x": "no such mark: sometimes",
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_block_that_nothing_can_run_fails(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    with pytest.raises(Exception, match=re.escape(UNKNOWN[text])) as refused:
        [steps(block) for block in blocks(tmp_path / "page.md")]
    assert refused.type in (UnknownBlock, SyntaxError, FileNotFoundError) or hasattr(refused.value, "exit_code")
