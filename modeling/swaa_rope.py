"""RoPE's fields as versions of transformers before 5 read them."""

from collections.abc import Mapping
from typing import Any

# Fields of their own then, which newer versions keep in `rope_parameters`.
_APART = ("rope_theta", "partial_rotary_factor")


def older_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and what else older versions read, from `rope_parameters`."""
    found = {name: rope[name] for name in _APART if name in rope}
    scaling = {name: value for name, value in rope.items() if name not in _APART}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "longrope":
        # Phi-3 takes the older name only, and the length apart.
        length = scaling.pop("original_max_position_embeddings", None)
        found |= {} if length is None else {"original_max_position_embeddings": length}
        scaling.pop("rope_type", None)
        scaling["type"] = kind
    return {**found, "rope_scaling": None if kind == "default" else scaling}
