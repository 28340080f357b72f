"""A source's own code is never imported or run, whatever names it."""

import json
from pathlib import Path

import pytest

from tests.malformed.damage import Change, config, refuses, write
from tests.support.command import run

MARK = "mark"


def with_code(change: Change) -> Change:
    """Python files that would leave a mark under every name that something could import."""

    def both(source: Path) -> None:
        code = f"open({str(source.parent / MARK)!r}, 'w')\n"
        for name in ("modeling_mine", "configuration_mine", "tokenization_mine", "conftest", "torch", "swaa_config"):
            (source / f"{name}.py").write_text(code)
        change(source)

    return both


REFERENCE = {"AutoConfig": "configuration_mine.Config", "AutoModelForCausalLM": "modeling_mine.Model"}
CASES: dict[str, tuple[Change, str]] = {
    "model": (config(auto_map=REFERENCE), "needs its own remote code (auto_map in config.json), which is never run"),
    "model elsewhere": (config(auto_map={"AutoModel": "evil/repo--x.Y"}), "needs its own remote code"),
    "odd reference": (config(auto_map="x"), "needs its own remote code"),
    "tokenizer": (
        write("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_mine.Mine", None]}}),
        "has a remote-code tokenizer (auto_map in tokenizer_config.json), which is never run",
    ),
    "processor": (
        write("processor_config.json", {"auto_map": {"AutoProcessor": "modeling_mine.Mine"}}),
        "processor_config.json names code to be run (auto_map)",
    ),
    "pipeline": (config(custom_pipelines={"x": {"impl": "modeling_mine.Mine"}}), "code to be run (custom_pipelines)"),
    "unknown architecture": (config(architectures=["MineForCausalLM"]), "is a MineForCausalLM; supported are"),
    "kernel": (config(attn_implementation="evil/kernels"), "code from elsewhere is never run"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_without_running_it(case: str, source: Path) -> None:
    refuses(source, with_code(CASES[case][0]), CASES[case][1])
    assert not (source.parent / MARK).exists()


def test_code_that_nothing_names_is_left_out(source: Path, tmp_path: Path) -> None:
    with_code(config())(source)
    (source / "custom_generate").mkdir()
    (source / "custom_generate/generate.py").write_text(f"open({str(tmp_path / MARK)!r}, 'w')")
    assert run(source, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert not (tmp_path / MARK).exists() and not (tmp_path / "out/torch.py").exists()
    assert "mine" not in json.dumps(sorted(path.name for path in (tmp_path / "out").iterdir()))


@pytest.mark.parametrize(
    "name",
    [
        "modeling_swaa_qwen3.so",
        "swaa_mask.cpython-311-x86_64-linux-gnu.so",
        "swaa_mask.PYD",
        "libx.dylib",
        "libx.dll",
        "swaa_mask.pyc",
        "swaa_mask.pyw",
        "__pycache__/swaa_mask.cpython-311.pyc",
        "swaa_mask/__init__.py",
        "additional_chat_templates/x.so",
    ],
)
def test_compiled_code_and_packages_are_left_out(name: str, source: Path, tmp_path: Path) -> None:
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(b"no library")
    assert run(source, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert not (tmp_path / "out" / name).exists()
    assert run("verify", tmp_path / "out").exit_code == 0


def test_pickles_are_never_loaded(source: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (source / name).write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / MARK) + b"'\ntR.")
    assert run(source, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert run("verify", tmp_path / "out").exit_code == 0
    assert not (tmp_path / MARK).exists()
