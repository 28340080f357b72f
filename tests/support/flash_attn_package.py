"""A package of the name flash-attn for the tests on a GPU: transformers looks for one before it takes the name."""

from pathlib import Path

_INIT = """
from tests.support.flash_attn_math import _flash_attn_varlen_backward, flash_attn_varlen_func
import torch

__version__ = "2.8.3"


def flash_attn_func(q, k, v, **options):
    batch, new, count = q.shape[0], q.shape[1], k.shape[1]
    bounds = [torch.arange(0, (batch + 1) * n, n, dtype=torch.int32, device=q.device) for n in (new, count)]
    states = [states.flatten(0, 1) for states in (q, k, v)]
    return flash_attn_varlen_func(*states, *bounds, new, count, **options).unflatten(0, (batch, new))


def flash_attn_with_kvcache(*args, **options):
    raise NotImplementedError
"""
_PADDING = """
from transformers.modeling_flash_attention_utils import _index_first_axis as index_first_axis
from transformers.modeling_flash_attention_utils import _pad_input as pad_input, _unpad_input as unpad_input
"""


def write_package(folder: Path) -> None:
    """Puts flash_attn and what says that it is installed into `folder`, to be named in PYTHONPATH."""
    package, info = folder / "flash_attn", folder / "flash_attn-2.8.3.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(_INIT, encoding="utf-8")
    (package / "flash_attn_interface.py").write_text("from flash_attn import *\n" + _INIT, encoding="utf-8")
    (package / "bert_padding.py").write_text(_PADDING, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n", encoding="utf-8")
    (info / "top_level.txt").write_text("flash_attn\n", encoding="utf-8")
    (info / "RECORD").write_text("flash_attn/__init__.py,,\n", encoding="utf-8")
