"""The model class that vLLM itself has for a family."""

from typing import Any

from vllm.model_executor.models import ModelRegistry

from swaa_convert.families import Family

# vLLM's wrapper around transformers' own modules, which SWAA can't be put into.
_WRAPPER = "vllm.model_executor.models.transformers"


def serves(family: Family) -> bool:
    """Whether the installed vLLM implements the family natively."""
    entry = ModelRegistry.models.get(family.architecture)
    module = getattr(entry, "module_name", None) or getattr(getattr(entry, "model_cls", None), "__module__", "")
    return entry is not None and not str(module).startswith(_WRAPPER)


def stock_class(family: Family) -> type[Any]:
    """vLLM's model class for the source's architecture."""
    found: type[Any] = ModelRegistry.models[family.architecture].load_model_cls()
    return found
