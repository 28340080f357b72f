"""Weights that transformers keeps otherwise in memory than on disk: since version 5 it fuses the experts of a layer.

transformers itself does both directions, loading and saving, so that no layout is written down here.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from swaa_convert.merge.quiet import silence

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
_FIRST = "model.layers.0."
# Whatever isn't fused is loaded too, at random, and is as small as it can be.
_SMALL: dict[str, Any] = {
    "num_hidden_layers": 1,
    "vocab_size": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "layer_types": None,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def fused(model: Any, path: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of the module `path` as `model` has them in memory, from the tensors stored below it.

    Keys of `stored` are names on disk, those of the result are relative to the module.
    """
    here = _LAYER.sub(_FIRST, f"{path}.")
    tensors = {_LAYER.sub(_FIRST, name): tensor for name, tensor in stored.items()}
    dtype = next(iter(stored.values())).dtype
    with silence():
        config = type(model.config).from_dict({**model.config.to_dict(), **_SMALL})
        loaded = type(model).from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)
    return dict(loaded.get_submodule(here.removesuffix(".")).state_dict())


def unfused(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under their names in memory, as they are stored."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return dict(tensors)
    stored: dict[str, Tensor] = revert_weight_conversion(model, dict(tensors))
    return stored
