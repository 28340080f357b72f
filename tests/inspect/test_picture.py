"""`--png`, and the masks that it draws."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from swaa_convert.inspect.command import inspect
from swaa_convert.inspect.figures import Rule
from swaa_convert.inspect.sketch import Sketch, kinds, mask_cells
from tests.inspect.conftest import MakeRepo, repo_config


def draw(folder: Path, png: Path) -> Result:
    return CliRunner().invoke(inspect, [str(folder), "--png", str(png)])


SWAA: list[dict[str, Any]] = [
    {},
    {"force_fa_decode": [0, 2], "fa_tail": 9},
    {"sliding_window_size": None},
    {"sliding_window_size": 1, "keep_first": 0, "non_sliding_layers": [], "force_fa_decode": False},
]


@pytest.mark.parametrize("swaa", SWAA)
def test_a_png_is_written(make_repo: MakeRepo, tmp_path: Path, swaa: dict[str, Any]) -> None:
    result = draw(make_repo(**swaa), tmp_path / "picture.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line(make_repo: MakeRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = draw(make_repo(), tmp_path / "picture.png")
    assert result.output == "Error: --png needs matplotlib: pip install 'swaa-convert[plots]'\n"


def test_a_folder_that_is_not_there(make_repo: MakeRepo, tmp_path: Path) -> None:
    result = draw(make_repo(), tmp_path / "nowhere" / "picture.png")
    assert "No such file" in result.output and result.exit_code == 1


def test_kinds_cover_every_layer_once() -> None:
    rule = Rule.from_config(repo_config(12, force_fa_decode=[0, 2])["swaa_config"], 12)
    assert [kind.layers for kind in kinds(rule)] == [(0, 2), (4, 6, 8, 10), (1, 3, 5, 7, 9, 11)]


def test_the_sketch_shows_the_rule_at_its_own_size() -> None:
    rule = Rule.from_config(repo_config(2, sliding_window_size=5, keep_first=2)["swaa_config"], 2)
    sketch = Sketch.of(rule)
    cells = mask_cells(rule, 0, sketch, cells=sketch.total)
    seen = [[cell not in ("", "hidden") for cell in row] for row in cells]
    assert seen == [[rule.attends(0, q, k, sketch.prompt) for k in range(sketch.total)] for q in range(sketch.total)]
    assert Counter(cells[-1]) == {"window": 5, "sinks": 2, "decode": sketch.total - 7}
