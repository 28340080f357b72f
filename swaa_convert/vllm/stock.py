"""The model class that vLLM itself has for a family."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel
from vllm.model_executor.models import ModelRegistry

from swaa_convert.families import Family
from swaa_convert.vllm.configs import config_class

# Runs transformers' own modules, with vLLM's attention layers in them.
_WRAPPER = "TransformersForCausalLM"
# Of these vLLM 0.32 has classes of its own that compute something else than transformers does.
_DIFFERENT = ("apertus", "ministral3")

_putting = ContextVar("putting", default=False)


@contextmanager
def putting_swaa(config: Any) -> Iterator[None]:
    """Around the making of a model that SWAA is then put into. Outside, nothing gives out modules without it."""
    # With --trust-remote-code the wrapper would take the repo's own modules, which no server may run.
    remote = config.__dict__.pop("auto_map", None)
    token = _putting.set(True)
    try:
        yield
    finally:
        _putting.reset(token)
        if remote is not None:
            config.auto_map = remote


def stock_class(family: Family) -> type[Any]:
    """vLLM's model class for the source's architecture: its own one, or its wrapper around transformers' modules."""
    entry = ModelRegistry.models.get(family.architecture)
    if entry is None or family.model_type in _DIFFERENT or getattr(entry, "class_name", "") == _WRAPPER:
        _register_modules(family)
        entry = ModelRegistry.models[_WRAPPER]
    found: type[Any] = entry.load_model_cls()
    return found


def _register_modules(family: Family) -> None:
    """The wrapper asks transformers for the modules of a configuration, which is ours."""
    config, stock = config_class(family), MODEL_MAPPING[CONFIG_MAPPING[family.model_type]]

    # vLLM reads its signature.
    @wraps(stock.__init__)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not _putting.get():
            raise ValueError(f"{family.swaa_architecture} is served without model_impl: its masks would be ignored")
        stock.__init__(self, *args, **kwargs)

    modules = type(stock.__name__, (stock,), {"config_class": config, "__init__": init, "__module__": stock.__module__})
    AutoModel.register(config, modules, exist_ok=True)
