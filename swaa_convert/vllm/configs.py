"""Configuration classes under our model types, so that vLLM runs no code of the repo to serve it."""

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig

from swaa_convert.families import Family, families
from swaa_convert.vllm.shipped.swaa_config import SwaaConfigMixin
from swaa_convert.vllm.stock import serves


def register_configs() -> None:
    """Registers the families that both vLLM and transformers have here. Others meet the guard in the repo's code."""
    for family in families():
        if serves(family) and family.model_type in CONFIG_MAPPING:
            config = _config_class(family)
            AutoConfig.register(family.swaa_model_type, config, exist_ok=True)


def _config_class(family: Family) -> type[Any]:
    """What the repo's own code would define: transformers in the same process may be given it too."""
    name = f"{family.swaa_prefix}Config"
    stock: type[Any] = CONFIG_MAPPING[family.model_type]

    def init(self: Any, **kwargs: Any) -> None:
        SwaaConfigMixin.__init__(self, **kwargs)

    # vLLM sends instances to its other processes, which look the class up here.
    body = {"model_type": family.swaa_model_type, "__init__": init, "__module__": __name__}
    found: type[Any] = globals().setdefault(name, type(name, (SwaaConfigMixin, stock), body))
    return found
