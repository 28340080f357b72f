"""Our architectures: vLLM's own model classes, in which each attention layer is replaced by ours."""

from typing import Any

import vllm
from transformers import CONFIG_MAPPING
from vllm.config import VllmConfig
from vllm.model_executor.models import ModelRegistry

from swaa_convert.families import Family, families
from swaa_convert.vllm.stock import putting_swaa, stock_class


def register_models() -> None:
    """Registers every family by name; the classes are made when vLLM asks for them."""
    for family in families():
        if family.model_type in CONFIG_MAPPING:
            ModelRegistry.register_model(family.swaa_architecture, f"{__name__}:{family.swaa_architecture}")


def __getattr__(name: str) -> Any:
    for family in families():
        if name == family.swaa_architecture:
            return globals().setdefault(name, _model_class(family))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _model_class(family: Family) -> type[Any]:
    stock = stock_class(family)

    def init(self: Any, *, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
        # Not at the top: vLLM also imports this file to learn of the class, where no device may be touched.
        try:
            from swaa_convert.vllm.backends import choose_backend
            from swaa_convert.vllm.layers import put_swaa_into, settings_of
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "vllm":
                raise
            raise ImportError(
                f"SWAA is served with vLLM 0.26 to 0.32, and this is {vllm.__version__}: {error}"
            ) from error

        settings = settings_of(vllm_config)
        if settings is not None:
            choose_backend(vllm_config)
        with putting_swaa(vllm_config.model_config.hf_config):
            stock.__init__(self, vllm_config=vllm_config, prefix=prefix, **kwargs)
        if settings is not None:
            put_swaa_into(self, vllm_config, settings)

    return type(family.swaa_architecture, (stock,), {"__init__": init, "__module__": __name__})
