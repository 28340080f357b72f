"""An adapter's tensors and its configuration as peft reads it, checked."""

import errno
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file
from torch import Tensor

from swaa_convert.errors import SwaaError
from swaa_convert.merge.adapter import CONFIG, WEIGHTS, Adapter
from swaa_convert.merge.quiet import silence
from swaa_convert.merge.stored import DTYPES, is_finite
from swaa_convert.weights import read_header

_SIZES = re.compile(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)")
# What a repo cloned without git-lfs has in place of its large files.
_POINTER = b"version https://git-lfs"
# Bytes to read through one mapping, or one tensor that is larger.
_MAPPED = 2**28
# Keys of adapter_config.json that are not settings of peft's.
_OURS = {"swaa_config"}
# What newer versions of peft write for every adapter, whether it means anything or not.
_HARMLESS = {"peft_version", "qalora_group_size"}


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter, ready to be merged.

    Parameters
    ----------
    config:
        peft's configuration of it; give peft a copy, which it changes.
    tensors:
        Its tensors by their names in the file, mapped into memory rather than read.
    keys:
        The names of its tensors, by the module that they change.
    targets:
        The modules that get a LoRA; others are replaced or have their bias replaced.
    axes:
        Modules of whose rows (0) or columns (1) peft computes each from its own.
    """

    adapter: Adapter
    config: Any
    tensors: Mapping[str, Tensor]
    keys: dict[str, list[str]] = field(default_factory=dict)
    targets: set[str] = field(default_factory=set)
    axes: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.adapter.name

    def mapped_anew(self) -> "LoadedAdapter":
        """The same, for a while: what was read through a mapping counts as memory until the mapping is gone."""
        if self.adapter.weights != WEIGHTS[0]:
            return self
        return replace(self, tensors=load_file(self.adapter.source.path_of(WEIGHTS[0])))

    def columns(self, key: str, some: slice) -> Tensor:
        """Some columns of a tensor; of a large one, what lies between them isn't mapped all at once."""
        whole = self.tensors[key]
        if whole.nbytes <= _MAPPED:
            return whole[:, some]
        step = max(1, _MAPPED * len(whole) // whole.nbytes)
        starts = range(0, len(whole), step)
        return torch.cat([self.mapped_anew().tensors[key][start : start + step, some].clone() for start in starts])


def load_adapter(adapter: Adapter) -> LoadedAdapter:
    """Map the tensors into memory and have peft read the configuration."""
    config = _config(adapter)
    tensors = _tensors(adapter)
    if not tensors:
        raise SwaaError(f"{adapter.name}: {adapter.weights} holds no tensors: save the adapter again")
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES.values():
            raise _other_dtype(adapter, key, str(tensor.dtype).removeprefix("torch."))
    _refuse_rank(adapter, config, tensors)
    loaded = LoadedAdapter(adapter, config, tensors)
    _refuse_infinite(loaded)
    return loaded


def starts_from_weights(config: Any) -> bool:
    """Whether peft computes the start of an adapter, which a merge needs, from the whole weights of a module."""
    return config.init_lora_weights not in (True, False, "gaussian")


@contextmanager
def one_line(adapter: Adapter, what: str, way_out: str) -> Iterator[None]:
    """Say what peft or transformers raises in one line: the adapter, what is wrong and the way out."""
    try:
        with silence():
            yield
    except (SwaaError, MemoryError, OSError):
        raise
    except KeyError as error:
        raise SwaaError(f"{adapter.name} {what}: it lacks {_plain(str(error.args[0]))}: {way_out}") from error
    except NotImplementedError as error:
        raise SwaaError(
            f"{adapter.name} {what}: {_sentence(error)}: convert without --lora, and load the adapter onto the result"
        ) from error
    except ImportError as error:
        raise SwaaError(f"{adapter.name} {what}: {_sentence(error)}: install that package") from error
    except (AttributeError, TypeError) as error:
        raise SwaaError(
            f"{adapter.name} {what}: {_sentence(error)}: peft {peft.__version__} and transformers "
            f"{transformers.__version__} may not fit each other, so upgrade them"
        ) from error
    except Exception as error:
        raise SwaaError(f"{adapter.name} {what}: {_sentence(error)}: {way_out}") from error


def _config(adapter: Adapter) -> Any:
    """peft's LoraConfig; a setting that this peft does not know would be dropped with a mere warning."""
    values = {key: value for key, value in adapter.config.items() if key not in _OURS}
    known = LoraConfig.__dataclass_fields__
    unknown = [key for key, value in values.items() if key not in known and key not in _HARMLESS and value]
    if unknown:
        raise SwaaError(
            f"{adapter.name}: {CONFIG} has {unknown[0]}, which the installed peft does not know: "
            "pip install --upgrade peft, or remove it from a copy if it means nothing"
        )
    with tempfile.TemporaryDirectory() as folder, one_line(adapter, "cannot be read by peft", "save it again"):
        (Path(folder) / CONFIG).write_text(json.dumps(values), encoding="utf-8")
        return PeftConfig.from_pretrained(folder)


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    name = adapter.weights
    path = adapter.source.path_of(name)
    _refuse_pointer(adapter, path)
    if name == WEIGHTS[0]:
        for key, info in read_header(path, f"{adapter.name}: {name}", "adapter").items():
            # Some of them, torch cannot even read.
            if info.dtype not in DTYPES:
                raise _other_dtype(adapter, key, info.dtype)
        return load_file(path)
    return _unpickled(adapter, path)


def _unpickled(adapter: Adapter, path: Path) -> dict[str, Tensor]:
    try:
        # Only tensors and plain containers are unpickled, no code. PyTorch 2.15 warns of what is refused below.
        with silence():
            found = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {str(key): tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}
    except MemoryError:
        raise
    except Exception as error:
        # An unpickler may stumble in any way. Where a file is cut off, torch says that the system refuses it.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            error.filename = error.filename or str(path)
            raise
        raise SwaaError(
            f"{adapter.name}: {adapter.weights} is damaged or holds more than tensors: "
            "load it with peft once and save it again, as safetensors"
        ) from error
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise SwaaError(
                f"{adapter.name}: {adapter.weights} holds {key} without plain numbers (sparse, quantized or meta): "
                "save the adapter again, as safetensors"
            )
    return tensors


def _refuse_rank(adapter: Adapter, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """peft makes tensors of the rank that it is told before it looks at those that there are."""
    most = max(max(tensor.shape, default=0) for tensor in tensors.values())
    rank, where = max([(config.r, "r"), *((rank, "rank_pattern") for rank in config.rank_pattern.values())])
    if rank > most:
        raise SwaaError(
            f"{adapter.name}: {where} in {CONFIG} has a rank of {rank}, but no tensor in {adapter.weights} is larger "
            f"than {most}: mend it in a copy of the adapter, or save the adapter again with peft"
        )


def _refuse_pointer(adapter: Adapter, path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise SwaaError(
                f"{adapter.name}: {adapter.weights} is a git-lfs pointer, not the weights: "
                "run `git lfs pull` where the adapter comes from, or fetch the adapter again"
            )


def _other_dtype(adapter: Adapter, key: str, dtype: str) -> SwaaError:
    return SwaaError(
        f"{adapter.name}: {key} is stored as {dtype}, which is no LoRA's: save the adapter again in bf16, fp16 or fp32"
    )


def _refuse_infinite(loaded: LoadedAdapter) -> None:
    mapped, read = loaded.mapped_anew(), 0
    for key in loaded.tensors:
        tensor = mapped.tensors[key]
        if not is_finite(tensor):
            raise SwaaError(
                f"{loaded.name}: {key} holds NaN or infinity: its training diverged, so take an earlier checkpoint"
            )
        read += tensor.nbytes
        if read > _MAPPED:
            mapped, read = loaded.mapped_anew(), 0


def _sentence(error: Exception) -> str:
    """The line that matters: of several, the first that says which tensor does not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    sizes = [match for line in lines if (match := _SIZES.match(line))]
    if sizes:
        return f"{_plain(sizes[0][1])} has shape {sizes[0][2]}, but the model needs {sizes[0][3]}"
    return _plain(lines[0])[:300].rstrip(".")


def _plain(text: str) -> str:
    """Names as the adapter's file has them."""
    return text.replace("base_model.model.", "").replace(".default", "")
