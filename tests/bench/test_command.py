"""`swaa-convert bench`: its tables, its files and its errors."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from swaa_convert.bench import compare as comparing
from swaa_convert.bench import profile as profiling
from swaa_convert.bench import report
from swaa_convert.bench.compare import Cell
from swaa_convert.bench.measure import Run
from swaa_convert.bench.subject import open_subject
from tests.bench.conftest import RECIPES, Make, settings
from tests.support.command import refused, run
from tests.support.sources import make_config, make_source

SIZES = ("--lengths", "24,40", "--new-tokens", "3", "--repeats", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def result(folder: Path, qwen3_source: Path) -> Result:
    files = ("--json", folder / "bench.json", "--png", folder / "bench.png")
    return run("bench", qwen3_source, "--recipes", RECIPES, *SIZES, *files, "--profile")


@pytest.fixture(scope="module")
def document(result: Result, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bench.json").read_text())
    return found


def test_a_table_per_length_and_a_row_per_variant(result: Result) -> None:
    assert result.exit_code == 0, result.output
    for name in ("full attention", "dense", "lean"):
        # Two lengths, two phases of the profile.
        assert sum(line.startswith(f"{name} ") for line in result.stdout.splitlines()) == 4
    assert "Prompt of 24 tokens" in result.stdout and "Prompt of 40 tokens" in result.stdout


def test_the_header_says_what_ran(result: Result, qwen3_source: Path) -> None:
    assert f"swaa-convert bench {qwen3_source} --recipes" in result.stdout
    for words in ("torch 2", "flash-attn-4", "Qwen3ForCausalLM", "4 layers", "float32", "sdpa, batch 1, 3 new tokens"):
        assert words in result.stdout
    assert "lean: window 8, sinks 2, 2 of 4 layers full, no FA decode" in result.stdout


def test_a_static_cache(qwen3_source: Path) -> None:
    result = run("bench", qwen3_source, "--recipes", RECIPES, *SIZES, "--cache", "static")
    assert "after a warm-up, static cache" in result.stdout
    assert "as large in windowed layers as in full" in result.stdout
    error = refused("bench", qwen3_source, "--cache", "static", "--profile", code=2)
    assert "leave out --cache static" in error


def test_json_holds_every_sample(document: dict[str, Any]) -> None:
    assert [(row["variant"], row["length"]) for row in document["results"]][:4] == [
        ("full attention", 24),
        ("dense", 24),
        ("lean", 24),
        ("full attention", 40),
    ]
    for row in document["results"]:
        assert [len(one["later"]) for one in row["runs"]] == [2, 2]
        assert row["warm_up"]["first"] > 0 and row["figures"]["peak_bytes"] is None
    assert document["variants"][2]["swaa_config"]["force_fa_decode"] is False
    assert document["machine"]["torch"] and document["command"].startswith("swaa-convert bench ")
    assert set(document["profile"]) == {"full attention", "dense", "lean"}


def test_picture(result: Result, folder: Path) -> None:
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["bench.json", "bench.png"]


def test_a_converted_repo_beside_itself(repo: Path) -> None:
    result = run("bench", repo, *SIZES, "--layers", "2")
    assert "\nbench_repo " in result.stdout and "\nfull attention " in result.stdout, result.output
    assert "the first 2 of 4 layers" in result.stdout


def test_another_baseline(repo: Path, qwen3_source: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "llama", "llama")
    assert f"of {other.name}" in run("bench", repo, *SIZES, "--baseline", other).stdout
    assert "is a converted repo" in refused("bench", repo, *SIZES, "--baseline", repo)


USAGE = [
    (["--recipes", "qualty"], "did you mean 'quality'?"),
    (["--lengths", "8x"], "'8x' is not a number of tokens"),
    (["--lengths", "0"], "1 token or more"),
    (["--layers", "9"], "--layers 9"),
    (["--repeats", "0"], "--repeats"),
    (["--dtype", "int8"], "--dtype"),
    (["--device", "nonsense"], "--device nonsense"),
    (["--backend", "paged|sdpa"], "--backend paged|sdpa: paged attention is for servers"),
    (["--json", "x", "--png", "./x"], "--json and --png both name x"),
]


@pytest.mark.parametrize(("args", "said"), USAGE)
def test_usage_errors(args: list[str], said: str, qwen3_source: Path) -> None:
    assert said in refused("bench", qwen3_source, *args, code=2)


def test_what_is_not_full_attention_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path / "hybrid", layer_types=["sliding_attention"] * 4)
    assert "already has windowed or linear layers" in refused("bench", source)
    assert "already has windowed or linear layers" in refused("bench", source, "--random-weights")


def test_without_weights_only_random_ones_can_be_measured(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(make_config("qwen3")))
    assert "has no weights" in refused("bench", tmp_path)
    assert "is a file" in refused("bench", tmp_path / "config.json")
    assert run("bench", tmp_path / "config.json", *SIZES, "--random-weights").exit_code == 0


def test_quantized_weights_are_refused_and_drawn_without(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(make_config("qwen3", quantization_config={"quant_method": "awq"})))
    assert "is quantized" in refused("bench", tmp_path)
    assert open_subject(str(tmp_path), random_weights=True).config.get("quantization_config") is None


def test_lengths_past_the_model_are_noted(qwen3_source: Path) -> None:
    subject, made = open_subject(str(qwen3_source)), settings(lengths=(4094,))
    [note] = report.notes_on(subject, made)
    assert "4,097 tokens run past the model's max_position_embeddings, 4,096" in note
    assert report.notes_on(subject, settings(lengths=(4093,))) == []
    assert report.notes_on(subject, settings(lengths=(4094,), random_weights=True)) == []


def test_slower_kernels_are_noted(qwen3_source: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure must not pass for that of a kernel which could not run."""
    contestants, subject = make(qwen3_source), open_subject(str(qwen3_source))
    assert report.fallbacks(contestants) == []
    code = sys.modules[type(contestants[1].model).__module__.rpartition(".")[0] + ".swaa_flex"]
    monkeypatch.setattr(code, "fallbacks", ["FlexAttention can't run here"])
    expected = ["dense: FlexAttention can't run here"]
    assert report.fallbacks(contestants) == expected
    assert report.document(subject, settings(), {}, contestants, [], "")["notes"] == expected


def test_other_code_is_noted(repo: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(repo, older)
    (older / "swaa_mask.py").write_text("# of another version\n")
    assert report.notes_on(open_subject(str(repo)), settings()) == []
    [note] = report.notes_on(open_subject(str(older)), settings())
    assert note.startswith("older carries other code")


def test_files_are_refused_before_the_work(qwen3_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("--json", "--png"):
        assert "No such file or directory" in refused("bench", qwen3_source, option, tmp_path / "no" / "file")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'swaa-convert[plots]'" in refused("bench", qwen3_source, "--png", tmp_path / "bench.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ValueError("no"), 1)])
def test_a_run_that_ends_early_leaves_its_files_as_they_were(
    error: BaseException, code: int, qwen3_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Run:
        raise error

    monkeypatch.setattr(comparing, "measure", fail)
    (tmp_path / "old.json").write_text("old")
    assert run("bench", qwen3_source, *SIZES, "--json", tmp_path / "old.json").exit_code == code
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.json", "old")]


def test_times_are_written_before_a_profiler_can_fail(
    qwen3_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no CUPTI")

    monkeypatch.setattr(profiling, "generate", fail)
    said = refused("bench", qwen3_source, *SIZES, "--json", tmp_path / "bench.json", "--profile")
    assert said == "--profile: full attention: no CUPTI"
    assert len(json.loads((tmp_path / "bench.json").read_text())["results"]) == 4


def test_rows_compare_with_full_attention() -> None:
    from rich.console import Console

    console = Console(width=200)
    cells = [
        Cell(8192, "full attention", [Run(2.0, (0.03,), 4096, 2048)]),
        Cell(8192, "x", [Run(1.0, (0.02,), 1024, None)]),
    ]
    cells.append(Cell(8192, "big", out_of_memory=True))
    with console.capture() as capture:
        console.print(report.table(cells, settings()))
    rows = [line.split() for line in capture.get().splitlines()]
    assert rows[0] == ["Prompt", "of", "8k", "tokens"]
    assert "2.00x" in rows[3] and "1.50x" in rows[3] and "25%" in rows[3] and rows[3][-1] == "n/a"
    assert rows[2][-2:] == ["2.00", "KiB"] and rows[4] == ["big", "out", "of", "memory"]


def test_without_full_attention_to_compare_with() -> None:
    cells = [Cell(8192, "full attention", out_of_memory=True), Cell(8192, "x", [Run(1.0, (0.02,), 1024, None)])]
    assert [list(column.cells) for column in report.table(cells, settings()).columns][2] == ["", "n/a"]


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from swaa_convert.cli import cli\n"
        "cli(['bench', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
