"""The model that is measured: a converted repo or a full-attention checkpoint, as a config without SWAA."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.families import Family, families, shipped_files
from swaa_convert.resources import MODELING_DIR
from swaa_convert.source import Source, open_source
from swaa_convert.source_checks import check_source, depth_of


@dataclass(frozen=True)
class ConfigFile(Source):
    """A config.json by itself, under any name: enough for random weights."""

    file: Path

    def path_of(self, name: str) -> Path:
        return self.file

    def fetch(self, names: Iterable[str], *, quiet: bool) -> None:
        """There is nothing to fetch."""


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Parameters
    ----------
    source:
        Where its weights are.
    config:
        config.json of the full-attention model.
    swaa:
        The `swaa_config` of a converted repo; None for a full-attention checkpoint.
    depth:
        How many layers it has on disk.
    other_code:
        Whether the converted repo's code is not this version's, which is what is measured.
    option:
        The option that named it, as errors say it; empty for SOURCE.
    """

    source: Source
    family: Family
    config: Mapping[str, Any]
    swaa: Mapping[str, Any] | None
    depth: int
    other_code: bool = False
    option: str = ""

    @property
    def layers(self) -> int:
        """How many layers are measured."""
        return int(self.config["num_hidden_layers"])

    @property
    def name(self) -> str:
        return self.source.name


def open_subject(where: str, revision: str | None = None, *, random_weights: bool = False) -> Subject:
    """The model in a folder or on the Hub, refused unless it is or was made from a full-attention one."""
    source = _open(where, revision, random_weights)
    config = source.read_json("config.json") if "config.json" in source.files else {}
    swaa, other_code = config.get("swaa_config"), False
    if swaa is not None:
        family = _converted_family(source, config)
        config, other_code = _unconverted(config, family), _code_differs(source, family)
    else:
        config, family = check_source(source)
    if config.get("quantization_config") and not random_weights:
        raise SwaaError(
            f"{source.name} is quantized, which can't be measured: --random-weights measures it unquantized"
        )
    config = {key: value for key, value in config.items() if key != "quantization_config"}
    return Subject(source, family, config, swaa, depth_of(source, config), other_code)


def full_subject(where: str, layers: int | None = None, *, random_weights: bool = False) -> Subject:
    """The first `layers` layers of --baseline, a full-attention checkpoint."""
    if not where:
        raise SwaaUsageError("--baseline is empty: give a folder or a Hub model such as Qwen/Qwen3-8B")
    option = f"--baseline {where}"
    with named(option):
        found = cut(open_subject(where, random_weights=random_weights), layers)
        if found.swaa is not None:
            raise SwaaError(f"{found.name} is a converted repo: give a full-attention checkpoint")
    return replace(found, option=option)


@contextmanager
def named(option: str) -> Iterator[None]:
    """Say before an error which option it is about, unless that is empty; the exit status stays."""
    try:
        yield
    except (SwaaError, SwaaUsageError) as error:
        if not option:
            raise
        kind = SwaaError if isinstance(error, SwaaError) else SwaaUsageError
        raise kind(f"{option}: {error.message}") from error


def cut(subject: Subject, layers: int | None) -> Subject:
    """The subject's first `layers` layers; lists of layers are cut with it."""
    if layers is None or layers == subject.depth:
        return subject
    if layers > subject.depth:
        raise SwaaUsageError(f"--layers {layers}: {subject.name} has {subject.depth}")
    config = dict(subject.config) | {"num_hidden_layers": layers}
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:layers]
    if "mlp_only_layers" in config:
        config["mlp_only_layers"] = _below(config["mlp_only_layers"], layers)
    swaa = subject.swaa and {key: _below(value, layers) for key, value in subject.swaa.items()}
    return replace(subject, config=config, swaa=swaa)


def _open(where: str, revision: str | None, random_weights: bool) -> Source:
    path = Path(where).expanduser()
    if not (random_weights and path.is_file()):
        return open_source(where, revision, quiet=False)
    if revision is not None:
        raise SwaaUsageError(f"--revision is for Hub models, but {where} is a local file: drop --revision")
    size, name = path.stat().st_size, path.resolve().parent.name if path.name == "config.json" else path.stem
    return ConfigFile(name=name, repo_id=None, revision=None, files={"config.json": size}, file=path)


def _converted_family(source: Source, config: Mapping[str, Any]) -> Family:
    known = {family.swaa_model_type: family for family in families()}
    if config.get("model_type") not in known or not isinstance(config["swaa_config"], dict):
        raise SwaaError(
            f"{source.name}: config.json has a swaa_config but model_type {config.get('model_type')!r}: "
            f"known are {', '.join(known)}"
        )
    return known[config["model_type"]]


def _unconverted(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The source's config: converting it changed nothing else that a class reads."""
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "swaa_config")}
    return kept | {"architectures": [family.architecture], "model_type": family.model_type}


def _code_differs(source: Source, family: Family) -> bool:
    """Whether a repo carries other code than this version of swaa-convert writes."""
    names = shipped_files(family) if family.entry_file in source.files else ()
    return any(name not in source.files or source.read(name) != (MODELING_DIR / name).read_bytes() for name in names)


def _below(value: Any, layers: int) -> Any:
    """A list of layer numbers."""
    return [layer for layer in value if layer < layers] if isinstance(value, list) else value
