"""Code of somebody else in a repo whose manifest was brought up to date with it: trust_remote_code would run it."""

import json
import py_compile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import refused, run, tree
from tests.verify.test_verify import differences, sign_again

CODE = b"raise SystemExit\n"
ELSEWHERE = {"auto_map": {"AutoTokenizer": ["evil/repo--mine.Mine", None]}}
CASES: dict[str, tuple[str, dict[str, Any] | bytes, str]] = {
    "module": ("mine.py", CODE, "is code that no conversion writes"),
    "extension module": ("swaa_mask.so", b"", "is compiled code"),
    "extension module below": ("deep/swaa_mask.cpython-311-x86_64-linux-gnu.so", b"", "is compiled code"),
    "compiled": ("__pycache__/swaa_mask.cpython-311.pyc", b"", "is compiled code"),
    "compiled alone": ("mine.pyc", b"", "is compiled code"),
    "package": ("swaa_mask/__init__.py", CODE, "is code that no conversion writes"),
    "generation": ("custom_generate/generate.py", CODE, "is code that no conversion writes"),
    "tokenizer": ("tokenizer_config.json", ELSEWHERE, "names code to be run (auto_map)"),
    "processor": ("processor_config.json", ELSEWHERE, "names code to be run (auto_map)"),
    "pipeline": ("config.json", {"custom_pipelines": {"x": {"impl": "evil/repo--mine.Mine"}}}, "(custom_pipelines)"),
    "kernel": ("config.json", {"attn_implementation": "evil/kernels"}, "names code to be run (attn_implementation)"),
}


def put(repo: Path, name: str, content: dict[str, Any] | bytes) -> None:
    """Write a file, or add to a JSON file, and sign it."""
    path = repo / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **content}).encode()
    path.write_bytes(content)
    sign_again(repo)


@pytest.mark.parametrize("case", CASES)
def test_verify_names_it(case: str, repo: Path) -> None:
    name, content, said = CASES[case]
    put(repo, name, content)
    assert said in differences(repo, "files")[name]


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"module"}))
def test_refresh_code_does_not_keep_it(case: str, repo: Path) -> None:
    name, content, said = CASES[case]
    put(repo, name, content)
    before = tree(repo)
    line = refused("refresh-code", repo)
    assert name in line and said in line and tree(repo) == before


@pytest.mark.parametrize("name", ["additional_chat_templates", "custom_generate"])
def test_a_linked_folder(name: str, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/generate.py").write_bytes(CODE)
    (repo / name).symlink_to(tmp_path / "elsewhere")
    (repo / "swaa_mask.py").write_text("# older\n")
    assert "is a link to a folder" in differences(repo, "files")[name]
    assert f"{name} is a link to a folder" in refused("refresh-code", repo)


def shadows(folder: Path) -> dict[str, tuple[str, bytes]]:
    """What Python would run instead of swaa_mask.py, name to file and content; each leaves a mark or breaks."""
    mark = f"open({str(folder / 'mark')!r}, 'w')\n"
    (folder / "mine.py").write_text(mark)
    compiled = cache_from_source("swaa_mask.py")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(folder / "mine.py"), str(folder / "mine.pyc"), invalidation_mode=mode)
    return {
        "package": ("swaa_mask/__init__.py", mark.encode()),
        "compiled": (compiled, (folder / "mine.pyc").read_bytes()),
        "extension module": (f"swaa_mask{EXTENSION_SUFFIXES[-1]}", b"no library"),
    }


@pytest.mark.parametrize("kind", ["package", "compiled", "extension module"])
def test_the_check_runs_nothing_of_the_folder(kind: str, repo: Path, tmp_path: Path) -> None:
    from swaa_convert.check import check_repo

    name, content = shadows(tmp_path)[kind]
    (repo / name).parent.mkdir(exist_ok=True)
    (repo / name).write_bytes(content)
    assert "none missing" in check_repo(repo)
    assert not (tmp_path / "mark").exists()


def test_refresh_code_leaves_what_nothing_runs(repo: Path) -> None:
    put(repo, "handler.py", CODE)
    assert run("refresh-code", repo).exit_code == 0 and (repo / "handler.py").read_bytes() == CODE


def test_nor_is_it_pushed(repo: Path) -> None:
    from swaa_convert.errors import SwaaError
    from swaa_convert.publish.local import verified

    put(repo, "mine.py", CODE)
    with pytest.raises(SwaaError, match="mine.py is code that no conversion writes"):
        verified(repo, lambda count: None)
