"""`swaa_config`, the object in config.json that says which layers are windowed and how."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class SwaaSettings:
    """The fields of `swaa_config`, under the names of the paper's reference code.

    sliding_window_size: keys in the window, the query's own included; None: no layer is windowed.
    keep_first: the first tokens of a sequence that stay visible to every query (sinks).
    force_fa_decode: full attention for generated tokens in every windowed layer, or in those listed.
    non_sliding_layers: layers that keep full attention.
    fa_tail: the last tokens of the prompt that attend fully too; needs FA decode.
    version: of this object's format.
    """

    sliding_window_size: int | None = None
    keep_first: int = 0
    force_fa_decode: bool | tuple[int, ...] = False
    non_sliding_layers: tuple[int, ...] = field(default=())
    fa_tail: int = 0
    version: int = VERSION

    @classmethod
    def parse(cls, values: Any, depth: int) -> "SwaaSettings":
        """Reads the object of config.json for a model of `depth` layers.

        Raises ValueError, with one line, for an unknown key or a value that is out of range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"swaa_config must be an object, not {values!r}")
        if "sliding_window_size" not in values:
            raise ValueError("swaa_config has no sliding_window_size: give it, or null where no layer is windowed")
        for key in values:
            _check_known(key, list(cls.__dataclass_fields__))
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        settings = cls(**fields)
        settings._check(depth)
        return settings

    def windowed(self, layer: int) -> bool:
        return self.sliding_window_size is not None and layer not in self.non_sliding_layers

    def fa_decode(self, layer: int) -> bool:
        """Whether generated tokens attend fully in this windowed layer."""
        choice = self.force_fa_decode
        return choice if isinstance(choice, bool) else layer in choice

    def _check(self, depth: int) -> None:
        window = self.sliding_window_size
        if window is not None:
            _check_count("sliding_window_size", window, least=1)
        _check_count("keep_first", self.keep_first)
        _check_count("fa_tail", self.fa_tail)
        _check_layers("non_sliding_layers", self.non_sliding_layers, depth)
        if not isinstance(self.force_fa_decode, bool):
            _check_layers("force_fa_decode", self.force_fa_decode, depth)
        if self.fa_tail and not self.force_fa_decode:
            raise ValueError(f"swaa_config: fa_tail={self.fa_tail} needs force_fa_decode")
        if self.version != VERSION:
            raise ValueError(
                f"swaa_config has version {self.version!r}, this code reads version {VERSION}: "
                "refresh the repository's code with swaa-convert"
            )


def _check_known(key: str, known: list[str]) -> None:
    if key not in known:
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"swaa_config has an unknown key {key!r}; {hint}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_count(name: str, value: Any, least: int = 0) -> None:
    if not _is_int(value) or value < least:
        raise ValueError(f"swaa_config: {name} must be an integer of at least {least}, not {value!r}")


def _check_layers(name: str, layers: Any, depth: int) -> None:
    if not isinstance(layers, tuple) or not all(_is_int(layer) for layer in layers):
        raise ValueError(f"swaa_config: {name} must be a list of layer indices, not {layers!r}")
    outside = [layer for layer in layers if not 0 <= layer < depth]
    if outside:
        raise ValueError(f"swaa_config: {name} names layer {outside[0]}, but the model has layers 0 to {depth - 1}")
