"""What every SWAA configuration class adds to the stock one it is derived from."""

from typing import Any

from .swaa_rope import older_rope
from .swaa_settings import SwaaSettings


class SwaaConfigMixin:
    """Carries `swaa_config`, and reads RoPE fields as any version of transformers writes them.

    To be listed before the stock configuration class; the subclass needs an `__init__` of its own that only calls
    this one, or newer versions of transformers generate another in its place.
    """

    num_hidden_layers: int
    max_position_embeddings: int

    def __init__(self, swaa_config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**self._translate_rope(kwargs))
        if getattr(self, "layer_types", None) is None:
            self._drop_idle_window()
        self.swaa_config = swaa_config
        if swaa_config is not None:
            self.swaa_settings()

    def swaa_settings(self) -> SwaaSettings:
        """`swaa_config`, checked. Raises ValueError where it is absent or wrong."""
        if self.swaa_config is None:
            raise ValueError("config.json has no swaa_config: this is not a complete converted repository")
        return SwaaSettings.parse(self.swaa_config, self.num_hidden_layers)

    def _drop_idle_window(self) -> None:
        """Phi-3 configs have a window past every position, for which newer caches have layers that keep everything."""
        window = getattr(self, "sliding_window", None)
        if window is not None and window >= self.max_position_embeddings:
            self.sliding_window = None

    @classmethod
    def _translate_rope(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Versions before 5 silently take theta 10000 where only the newer `rope_parameters` is given."""
        rope = kwargs.get("rope_parameters")
        if not isinstance(rope, dict) or not _reads_older_rope():
            return kwargs
        rest = {k: v for k, v in kwargs.items() if k != "rope_parameters"}
        return rest | older_rope(rope)


def _reads_older_rope() -> bool:
    import transformers

    return int(transformers.__version__.split(".")[0]) < 5
