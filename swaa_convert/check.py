"""The check before a repo appears: the code builds its structure, and the weights on disk fit it exactly.

Everything happens on the meta device with the safetensors headers: no weight is read, and no file of the repo is run.
"""

import importlib
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers

from swaa_convert.check_names import fits_by_name, tied_names
from swaa_convert.embedded_code import family_of
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family
from swaa_convert.quiet import silence
from swaa_convert.resources import MODELING_DIR
from swaa_convert.safetensors_header import TensorInfo
from swaa_convert.weights import read_headers

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
}
# Characters of what transformers says.
_LONGEST = 300


def check_repo(folder: Path) -> str:
    """Check a converted repo under this version's code and say what was checked; SwaaError names what is wrong."""
    config_json = json.loads((folder / "config.json").read_bytes())
    headers = read_headers({path.name: path for path in sorted(folder.glob("*.safetensors"))})
    family = family_of(folder.name, config_json)
    with shipped_classes(family) as (config_class, model_class), silence(), _one_line_errors():
        config = config_class.from_pretrained(folder)
        if getattr(config, "quantization_config", None) is not None:
            return _check_quantized(model_class, config, headers)
        _check_structure(model_class, config, headers)
    return f"{len(headers)} weights fit the model's structure: none missing, none unexpected"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What transformers raises for a config.json that it cannot use has no common class."""
    try:
        yield
    except SwaaError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise SwaaError(
            f"transformers {transformers.__version__} makes no model of config.json ({what}): "
            "mend config.json, or fetch the source again"
        ) from error


def _check_structure(model_class: Any, config: Any, headers: Mapping[str, TensorInfo]) -> None:
    """Load tensors without data under the names on disk: transformers itself says what does not fit.

    That way its own renaming, tying and fusing of experts is what is checked.
    """
    for name, info in headers.items():
        if not info.dtype.startswith(("F", "BF")):
            _refuse(f"{info.dtype}, which no weight is that is not packed", [name])
    # A tied weight that is stored all the same would be compared by value, which empty tensors have none of.
    copies = tied_names(model_class, config) if any(name.endswith("embed_tokens.weight") for name in headers) else ()
    tensors = {name: _empty(info) for name, info in headers.items() if name not in copies}
    try:
        _, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            # Not what config.json says: it may be one that is not installed.
            attn_implementation="eager",
        )
    except RuntimeError as error:
        raise SwaaError(f"the weights do not fit the model: {str(error).splitlines()[0]}") from error
    _refuse("missing", report["missing_keys"])
    _refuse("unexpected", report["unexpected_keys"])
    _refuse("of the wrong shape", [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]])


def _check_quantized(model_class: Any, config: Any, headers: Mapping[str, TensorInfo]) -> str:
    """Packed weights have shapes of their own and may need an absent quantizer: names alone are compared."""
    quantizer = config.quantization_config
    del config.quantization_config
    with torch.device("meta"):
        structure = model_class(config)
    missing, unexpected = fits_by_name(structure, headers.keys(), tied_names(model_class, config))
    _refuse("missing", missing)
    _refuse("unexpected", unexpected)
    method = quantizer.get("quant_method", "quantized") if isinstance(quantizer, dict) else "quantized"
    return f"{len(headers)} {method} weights belong to the model's modules (names only: they are packed)"


def _refuse(what: str, names: Any) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise SwaaError(
            f"the source's weights do not fit its config.json: {found[0]} is {what}{more}: fetch the source again"
        )


def _empty(info: TensorInfo) -> torch.Tensor:
    return torch.empty(info.shape, dtype=_DTYPES.get(info.dtype, torch.uint8), device="meta")


@contextmanager
def shipped_classes(family: Family) -> Iterator[tuple[Any, Any]]:
    """(config class, model class) of a family from the files that this version ships, imported under a passing name.

    Never from a repo's folder: an extension module, a package or a compiled file there would come before swaa_mask.py.
    transformers' Auto classes would leave a copy of the code in the user's module cache.
    """
    package = ModuleType(f"swaa_check_{uuid.uuid4().hex}")
    package.__path__ = [str(MODELING_DIR)]
    sys.modules[package.__name__] = package
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield (
            _load(package.__name__, family.auto_map["AutoConfig"]),
            _load(package.__name__, family.auto_map["AutoModelForCausalLM"]),
        )
    finally:
        sys.dont_write_bytecode = writes
        for name in [name for name in sys.modules if name.split(".")[0] == package.__name__]:
            del sys.modules[name]


def _load(package: str, reference: str) -> Any:
    module, name = reference.split(".")
    return getattr(importlib.import_module(f"{package}.{module}"), name)
