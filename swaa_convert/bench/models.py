"""The models of one benchmark: the stock class, and every variant as it is shipped, on one copy of the weights."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # PyTorch 2.8 can't import it while a default device is set, as `_skeleton` does.
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from swaa_convert.bench.memory import out_of_memory, stored_bytes
from swaa_convert.bench.settings import Settings
from swaa_convert.bench.subject import Subject, named
from swaa_convert.bench.variants import FULL, Variant
from swaa_convert.config_json import converted_config, dump_json
from swaa_convert.errors import SwaaError
from swaa_convert.families import shipped_files
from swaa_convert.quiet import silence
from swaa_convert.resources import MODELING_DIR
from swaa_convert.weights import check_weights, find_weights

_STD = 0.02
# What numbers that no checkpoint has are not computed from, as small as it can be.
_SMALL: dict[str, Any] = {
    "num_hidden_layers": 1,
    "layer_types": None,
    "intermediate_size": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "vocab_size": 1,
    "output_vocab_size": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Contestant:
    """A model under the name that the tables show; `swaa` is None for full attention."""

    name: str
    model: Any
    swaa: Mapping[str, Any] | None
    note: str | None = None

    @property
    def weight_bytes(self) -> int:
        return stored_bytes(self.model.parameters())

    @property
    def fallbacks(self) -> list[str]:
        """What the embedded code said of slower kernels that it had to take; stock code has none."""
        code = sys.modules.get(type(self.model).__module__.rpartition(".")[0] + ".swaa_flex")
        return list(getattr(code, "fallbacks", []))


def build(
    subject: Subject, baseline: Subject | None, variants: list[Variant], settings: Settings, workspace: Path
) -> list[Contestant]:
    """Full attention first, then the variants; they share the weights, unless full attention is another model's."""
    with silence():
        owners = [subject] if baseline is None else [subject, baseline]
        # Fetching and loading take minutes: what can't be built is said before the first of them.
        folders = [_prepared(owner, settings, workspace / f"stock_{number}") for number, owner in enumerate(owners)]
        own, *others = [_stock(owner, settings, folder) for owner, folder in zip(owners, folders, strict=True)]
        full = others[0] if others else own
        found = [Contestant(FULL, full, None, None if baseline is None else f"of {baseline.name}, on its own weights")]
        for number, variant in enumerate(variants):
            # transformers shares code between local folders of the same name.
            folder = workspace / f"swaa_bench_{subject.family.model_type}_{number}"
            with _one_line_errors():
                model = _converted(subject, variant, settings, folder)
                share_weights(model, own)
                _ready(model)
            found.append(Contestant(variant.name, model, variant.swaa, variant.note))
    return found


def share_weights(model: nn.Module, owner: nn.Module) -> None:
    """Give a model without data the very tensors of another, buffers that no checkpoint has included."""
    _assign(model, owner.state_dict(), strict=True)
    owners = dict(owner.named_modules())
    for name, module in model.named_modules():
        if name in owners:
            _share_buffers(module, owners[name])


def _share_buffers(module: nn.Module, owner: nn.Module) -> None:
    for name in module._buffers:
        module._buffers[name] = owner._buffers[name]
    # Some versions keep the rotary embedding's first frequencies as a plain attribute.
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            setattr(module, name, getattr(owner, name))


def _prepared(subject: Subject, settings: Settings, folder: Path) -> Path:
    """The folder with config.json; a class, a backend or weights that are not there are refused."""
    with named(subject.option), _one_line_errors():
        folder.mkdir()
        (folder / "config.json").write_text(dump_json(dict(subject.config)), encoding="utf-8")
        _skeleton(folder, settings)
        if not settings.random_weights:
            find_weights(subject.source)
    return folder


def _stock(subject: Subject, settings: Settings, folder: Path) -> Any:
    """transformers' own class."""
    with named(subject.option), _one_line_errors():
        model = _drawn(settings, folder) if settings.random_weights else _loaded(subject, settings, folder)
        _ready(model)
        return model


def _drawn(settings: Settings, folder: Path) -> Any:
    model = _skeleton(folder, settings)
    randomise(model, settings.device)
    return model


def _loaded(subject: Subject, settings: Settings, folder: Path) -> Any:
    _link_weights(subject, folder)
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=settings.torch_dtype,
        attn_implementation=settings.backend,
        device_map=settings.device,
    )


def _link_weights(subject: Subject, folder: Path) -> None:
    source = subject.source
    weights = find_weights(source)
    source.fetch(weights, quiet=False)
    check_weights(source, weights)
    for name in weights:
        (folder / name).symlink_to(source.path_of(name))


def _converted(subject: Subject, variant: Variant, settings: Settings, folder: Path) -> Any:
    """What a converted repo holds, but for its weights."""
    config = converted_config(dict(subject.config), subject.family, dict(variant.swaa))
    folder.mkdir()
    (folder / "config.json").write_text(dump_json(config), encoding="utf-8")
    for name in shipped_files(subject.family):
        (folder / name).write_bytes((MODELING_DIR / name).read_bytes())
    return _skeleton(folder, settings, trust_remote_code=True)


def _skeleton(folder: Path, settings: Settings, **trust: bool) -> Any:
    """The model of a folder's config.json, without data."""
    config = AutoConfig.from_pretrained(folder, **trust)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=settings.torch_dtype, attn_implementation=settings.backend, **trust
        )


def randomise(model: Any, device: str, seed: int = 0) -> None:
    """Fill a model without data: norms with ones, biases with zeros, the rest from N(0, 0.02)."""
    generator = torch.Generator(device).manual_seed(seed)

    def drawn(name: str, like: Tensor) -> Tensor:
        made = torch.empty(like.shape, dtype=like.dtype, device=device)
        if like.ndim == 1:
            return made.fill_(0.0 if name.endswith("bias") else 1.0)
        return made.normal_(0.0, _STD, generator=generator)

    # A tied weight is named once, and tied again afterwards.
    _assign(model, {name: drawn(name, weight) for name, weight in model.named_parameters()}, strict=False)
    # Its frequencies are no weights: the class computes them.
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    _compute_buffers(model, device)


def _compute_buffers(model: Any, device: str) -> None:
    """Other numbers of the class's own, such as Gemma's scale of embeddings: a small model with data has them."""
    hollow = {name: buffer for name, buffer in model.named_buffers() if buffer.is_meta}
    if hollow:
        config = type(model.config).from_dict({**model.config.to_dict(), **_SMALL})
        with torch.device(device):
            computed = dict(type(model)(config).named_buffers())
        for name, buffer in hollow.items():
            owner, _, last = name.rpartition(".")
            number = computed[re.sub(r"\blayers\.\d+", "layers.0", name)]
            model.get_submodule(owner)._buffers[last] = number.to(buffer.dtype)


def _assign(model: Any, state: Mapping[str, Tensor], *, strict: bool) -> None:
    model.load_state_dict(state, strict=strict, assign=True)
    model.tie_weights()


def _ready(model: Any) -> None:
    """Nothing is trained, nothing is left without data, and no token of the config ends generation."""
    model.eval().requires_grad_(False)
    model.generation_config = GenerationConfig()
    hollow = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if hollow:
        raise SwaaError(f"{type(model).__name__} of transformers {transformers.__version__}: {hollow[0]} got no data")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """A backend that isn't installed, too little memory or a damaged config is said in one line."""
    try:
        yield
    except SwaaError:
        raise
    except Exception as error:
        way_out = "take fewer --layers" if out_of_memory(error) else "take another --backend or another checkpoint"
        said = f"{type(error).__name__}: {first_line(error)}"
        raise SwaaError(f"the model can't be built ({said}): {way_out}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
