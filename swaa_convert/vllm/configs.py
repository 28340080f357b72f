"""Configuration classes under our model types, so that vLLM runs no code of the repo to serve it."""

from typing import Any, cast

from transformers import CONFIG_MAPPING, AutoConfig

from swaa_convert.families import Family, families
from swaa_convert.vllm.shipped.swaa_config import SwaaConfigMixin


def register_configs() -> None:
    """Registers the families that transformers has here. Others meet the guard in the repo's code."""
    for family in families():
        if family.model_type in CONFIG_MAPPING:
            config = config_class(family)
            AutoConfig.register(family.swaa_model_type, config, exist_ok=True)


def __getattr__(name: str) -> Any:
    """vLLM's other processes look the class up here, of a configuration that they are sent, before any plugin ran."""
    for family in families():
        if name == f"{family.swaa_prefix}Config" and family.model_type in CONFIG_MAPPING:
            return config_class(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def config_class(family: Family) -> type[Any]:
    """What the repo's own code would define: transformers in the same process may be given it too."""
    name = f"{family.swaa_prefix}Config"
    if name in globals():
        return cast(type[Any], globals()[name])
    stock: Any = CONFIG_MAPPING[family.model_type]

    def init(self: Any, **kwargs: Any) -> None:
        SwaaConfigMixin.__init__(self, **kwargs)

    def set_attribute(self: Any, key: str, value: Any) -> None:
        if key == "architectures":
            refuse_architectures(value or [], family)
        stock.__setattr__(self, key, value)

    body = {
        "model_type": family.swaa_model_type,
        "__init__": init,
        "__setattr__": set_attribute,
        "__module__": __name__,
    }
    return cast(type[Any], globals().setdefault(name, type(name, (SwaaConfigMixin, stock), body)))


def refuse_architectures(names: list[str], family: Family) -> None:
    """Raises ValueError for a stock class, which vLLM would make with full attention: `hf_overrides` can name one."""
    others = [name for name in names if not name.startswith(family.swaa_prefix)]
    if others:
        raise ValueError(
            f"SWAA can't be served as {others[0]}, whose attention is full: leave architectures out of hf_overrides "
            f"(--convert classify or embed makes other tasks of {family.swaa_architecture})"
        )
