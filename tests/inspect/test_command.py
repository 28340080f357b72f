"""`swaa-convert inspect`: its text, its JSON, its picture and its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from swaa_convert.convert import convert_checkpoint
from swaa_convert.inspect.command import inspect
from swaa_convert.recipe import Recipe
from tests.inspect.conftest import MakeRepo

COMMIT = "1cfa9a7208912126459214e8b04321603b3df60c"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(inspect, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return " ".join(result.output.split())


def test_text_says_what_the_repo_does(make_repo: MakeRepo) -> None:
    text = said(run(make_repo()))
    assert f"Source Qwen/Qwen3-4B at {COMMIT}" in text
    assert "18 of 36 layers keep full attention: 1, 3, 5, ... 35." in text
    assert "sees the last 2,048 tokens, itself included, and the first 100 (sinks)" in text
    assert "A prompt of up to 2,148 tokens is computed exactly as the source" in text
    assert "32k 56% 100% 4.50 GiB 4.50 GiB" in text


SENTENCES = [
    ({"keep_first": 0}, "sees the last 2,048 tokens, itself included."),
    ({"force_fa_decode": True, "fa_tail": 64}, "and so does each of the last 64 prompt tokens."),
    ({"force_fa_decode": False}, "see no more than that, so the KV cache keeps at most 2,147 tokens there."),
    ({"force_fa_decode": [0, 2]}, "A generated token sees everything in layers 0, 2 (FA decode)."),
    ({"force_fa_decode": [0, 2]}, "In the remaining 16 it sees no more than a prompt token"),
    ({"non_sliding_layers": []}, "None of the 36 layers keeps full attention. - In every layer,"),
    ({"non_sliding_layers": [7]}, "1 of 36 layers keeps full attention: 7."),
    ({"sliding_window_size": None}, "Every layer keeps full attention"),
]


@pytest.mark.parametrize(("swaa", "sentence"), SENTENCES)
def test_the_rule_in_words(make_repo: MakeRepo, swaa: dict[str, object], sentence: str) -> None:
    assert sentence in said(run(make_repo(**swaa)))


@pytest.mark.parametrize("depth", [28, 36, 48, 80, 126])
def test_text_fits_80_columns(make_repo: MakeRepo, depth: int) -> None:
    lines = run(make_repo(depth, force_fa_decode=[0, 2], fa_tail=1), "--lengths", "1,1000,1000m").output
    assert max(len(line) for line in lines.splitlines()) <= 80


def test_json_has_stable_keys(make_repo: MakeRepo) -> None:
    document = json.loads(run(make_repo(force_fa_decode=False), "--json", "--lengths", "4k").output)
    assert list(document) == ["format", "repo", "source", "layers", "rule", "recipe", "kv", "costs"]
    assert document["source"] == {"name": "Qwen/Qwen3-4B", "revision": COMMIT}
    assert document["layers"]["full"] == list(range(1, 36, 2))
    [cost] = document["costs"]
    assert cost["kv_bytes"] == 18 * (4096 + 2147) * document["kv"]["bytes_per_token_and_layer"]
    assert cost["prompt_share"] == cost["prompt_pairs"] / cost["full_prompt_pairs"]


def test_a_repo_without_its_recipe_is_still_read(make_repo: MakeRepo) -> None:
    folder = make_repo(recipe=None)
    assert "Source not recorded" in said(run(folder))
    assert json.loads(run(folder, "--json").output)["source"] == {"name": None, "revision": None}


def test_a_real_conversion(qwen3_source: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(qwen3_source, tmp_path / "out", Recipe(window=16, keep_first=2), check=False)
    document = json.loads(run(out, "--json").output)
    assert document["rule"]["sliding_window_size"] == 16
    assert document["source"]["name"] == qwen3_source.name
    assert str(tmp_path) not in run(out).output


def test_text_and_json_need_no_torch(make_repo: MakeRepo) -> None:
    code = (
        "import sys; from swaa_convert.inspect.command import inspect\n"
        f"inspect([{str(make_repo())!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_hub_repo_costs_two_small_files(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

    folder, fetched = make_repo(), []
    names = ["config.json", "swaa_recipe.yaml", "model.safetensors"]
    info = ModelInfo(id="me/q3", sha=COMMIT, siblings=[])
    info.siblings = [RepoSibling(rfilename=name, size=1) for name in names]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)

    def download(repo: str, name: str, *, revision: str) -> str:
        fetched.append((repo, name, revision))
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert f"Repo me/q3 at {COMMIT}" in said(run("me/q3"))
    assert fetched == [("me/q3", name, COMMIT) for name in names[:2]]
