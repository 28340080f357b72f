"""The command line itself: forms, usage errors (exit 2), help that imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from swaa_convert import __version__
from swaa_convert.presets import NAMES
from tests.support.command import refused, run

USAGE = [
    (["--window", "0"], "window must be 1 or more"),
    (["--window", "two"], "'two' is not a number of tokens such as 2048 or 2k"),
    (["--window", "-3"], "'-3' is not a number of tokens"),
    (["--keep-first", "x"], "'x' is not a number of tokens"),
    (["--interleave", "od"], "unknown interleave 'od': did you mean 'odd'?"),
    (["--interleave", "odd", "--full-layers", "1"], "--interleave and --full-layers exclude each other"),
    (["--no-fa-decode", "--fa-decode-layers", "1"], "exclude each other"),
    (["--fa-decode", "--fa-decode-layers", "1"], "exclude each other"),
    (["--no-fa-decode", "--fa-tail", "5"], "fa_tail needs FA decode"),
    (["--full-layers", "1;2"], "'1;2' is not a list of layers such as 1,5,9"),
    (["--full-layers", "1,-2"], "layers are counted from 0"),
    (["--set", "widow=3"], "unknown recipe key 'widow': did you mean 'window'?"),
    (["--set", "window"], "--set takes KEY=VALUE, not 'window'"),
    (["--set", "window=[", "--quiet"], "--set window: line 1"),
    (["--set", "window=3", "--window", "4"], "window is set twice"),
    (["--set", "interleave=odd", "--full-layers", "1"], "exclude each other"),
    (["--recipe", "quality", "--windw", "3"], "No such option"),
]


@pytest.mark.parametrize(("args", "said"), USAGE)
def test_usage_errors(args: list[str], said: str, qwen3_source: Path, tmp_path: Path) -> None:
    assert said in refused(qwen3_source, "--out", tmp_path / "out", *args, code=2)
    assert not (tmp_path / "out").exists()


def test_out_is_required(qwen3_source: Path) -> None:
    assert "--out" in refused(qwen3_source, code=2)


@pytest.mark.parametrize(("word", "meant"), [("inspct", "inspect"), ("convrt", "convert"), ("recipe", "recipes")])
def test_mistyped_command(word: str, meant: str) -> None:
    assert refused(word, code=2) == f"no command {word!r}: did you mean {meant!r}?"


def test_a_folder_is_a_source_whatever_its_name(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source.rename("recipe")
    assert run("recipe", "--out", "out", "--dry-run").exit_code == 0


def test_no_such_source(tmp_path: Path) -> None:
    assert "offline mode is on" in refused("nobody/nothing", "-o", tmp_path / "out", "-q")
    assert refused("./nothing", "-o", tmp_path / "out", "-q").startswith("no folder ./nothing")
    assert refused("", "-o", tmp_path / "out", "-q").startswith("SOURCE is empty")
    assert "offline mode is on" in refused("convert/demo", "-o", tmp_path / "out", "-q")
    assert refused("a/b/c", "-o", tmp_path / "out", "-q").startswith("no folder a/b/c")


def test_a_file_is_no_source(qwen3_source: Path, tmp_path: Path) -> None:
    said = refused(qwen3_source / "model.safetensors", "-o", tmp_path / "out", "-q")
    assert "is a file: give the folder" in said


def test_revision_is_for_the_hub(qwen3_source: Path, tmp_path: Path) -> None:
    assert "drop --revision" in refused(qwen3_source, "-o", tmp_path / "out", "-q", "--revision", "main", code=2)


@pytest.mark.parametrize("form", [["convert"], []])
def test_both_forms_are_one_command(form: list[str], qwen3_source: Path, tmp_path: Path) -> None:
    result = run(*form, qwen3_source, "--out", tmp_path / "out", "--window", "2k", "--interleave", "odd", "--dry-run")
    assert result.exit_code == 0
    assert "Window   2048 tokens" in result.stdout


def test_options_may_come_first(qwen3_source: Path, tmp_path: Path) -> None:
    assert run("--window", "8", "--dry-run", "--out", tmp_path / "out", qwen3_source).exit_code == 0


def test_dry_run_says_everything_and_writes_nothing(qwen3_source: Path, tmp_path: Path) -> None:
    result = run(qwen3_source, "--out", tmp_path / "new/out", "--dry-run", "--quiet")
    for said in (
        "balanced, the default",
        "Qwen3ForCausalLM, 4 layers",
        "░█░█",
        "try even too",
        "README.md",
        "swaa_config: {",
        "nothing was written",
    ):
        assert said in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_says_what_was_changed(qwen3_source: Path, tmp_path: Path) -> None:
    args = (qwen3_source, "--out", tmp_path / "out", "--dry-run", "--window", "9", "--set", "fa_tail=2")
    assert run(*args).stdout.startswith("Recipe   balanced, the default, with your window, fa_tail\n")


def test_quiet_says_nothing(qwen3_source: Path, tmp_path: Path) -> None:
    result = run(qwen3_source, "--out", tmp_path / "out", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_recipe_file_with_flags_on_top(qwen3_source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("window: 7\nfull_layers: [0]\nkeep_first: 2\n")
    args = ("--recipe", tmp_path / "mine.yaml", "--interleave", "even", "--set", "keep_first=3", "--dry-run")
    result = run(qwen3_source, "--out", tmp_path / "out", *args)
    assert "Window   7 tokens, and the first 3" in result.stdout
    assert "full attention in 0, 2 (even)" in result.stdout


def test_broken_recipe_file(qwen3_source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("windw: 7\n")
    said = refused(qwen3_source, "--out", tmp_path / "out", "--recipe", tmp_path / "mine.yaml", code=1)
    assert said.endswith("unknown key 'windw': did you mean 'window'?")


def test_no_such_recipe(qwen3_source: Path, tmp_path: Path) -> None:
    args = (qwen3_source, "--out", tmp_path / "out", "--recipe", "balancd")
    assert "did you mean 'balanced'" in refused(*args, code=2)


def test_published_list_needs_clipping(qwen3_source: Path, tmp_path: Path) -> None:
    args = (qwen3_source, "--out", tmp_path / "out", "--full-layers", "1,3,47", "--dry-run")
    assert "names layer 47, but the model has layers 0 to 3 (--clip-layers" in refused(*args, "--quiet")
    clipped = run(*args, "--clip-layers").stdout
    assert "full attention in 1, 3" in clipped and "layers 47 of the recipe: past the model's depth" in clipped


@pytest.mark.parametrize(("layers", "code"), [("47", 1), ("", 2)])
def test_a_list_that_names_no_layer_is_refused(qwen3_source: Path, tmp_path: Path, layers: str, code: int) -> None:
    refused(qwen3_source, "--out", tmp_path / "out", "--full-layers", layers, "--clip-layers", code=code)


def test_tuned_recipe_says_so(qwen3_source: Path, tmp_path: Path) -> None:
    result = run(qwen3_source, "--out", tmp_path / "out", "--recipe", "efficiency-lora", "--dry-run")
    assert "weights tuned under SWAA" in result.stdout


def test_recipes_table() -> None:
    result = run("recipes")
    assert [name for name in NAMES if f"\n{name} " not in result.stdout] == []
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_recipes_show() -> None:
    assert run("recipes", "show", "quality").stdout.startswith("summary: ")
    assert "did you mean 'efficiency'" in refused("recipes", "show", "eficiency", code=2)


def test_version() -> None:
    assert run("--version").stdout.startswith(f"swaa-convert {__version__}\nPython 3.")


def test_help_is_grouped_with_examples() -> None:
    text = run("convert", "--help").stdout
    for said in ("Source and output:", "Recipe:", "Conversion:", "Dangerous:", "Examples:"):
        assert said in text


@pytest.mark.parametrize("args", [["--help"], ["convert", "--help"], ["recipes"], ["--version"], ["verify", "--help"]])
def test_starts_fast(args: list[str]) -> None:
    script = (
        "import sys; sys.argv = ['swaa-convert', *sys.argv[1:]]\n"
        "from swaa_convert.cli import main\n"
        "try: main()\n"
        "finally: print([n for n in ('torch', 'transformers', 'huggingface_hub', 'peft') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_module_form() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "swaa_convert", "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("Usage: ")
