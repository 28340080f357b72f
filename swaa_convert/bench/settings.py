"""What one benchmark measures and where, after defaults are filled in for the device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swaa_convert.errors import SwaaUsageError

if TYPE_CHECKING:
    import torch

DTYPES = ("bfloat16", "float16", "float32")
CACHES = ("dynamic", "static")
# Without a GPU a prompt of 8k takes minutes.
_GPU_DEFAULTS: dict[str, Any] = {"lengths": (8192, 32768, 131072), "new_tokens": 128, "dtype": "bfloat16"}
_CPU_DEFAULTS: dict[str, Any] = {"lengths": (512, 2048), "new_tokens": 16, "dtype": "float32"}


@dataclass(frozen=True)
class Settings:
    """One benchmark.

    Parameters
    ----------
    lengths:
        Prompt lengths in tokens, ascending.
    new_tokens:
        Tokens that each run generates.
    batch:
        Prompts that are read at once.
    repeats:
        Timed runs of every variant at every length.
    device, dtype, backend:
        As torch and `attn_implementation` name them.
    cache:
        "dynamic", or "static", as `cache_implementation` names it: of fixed size, with compiled decode steps on a GPU.
    random_weights:
        Weights are drawn at random instead of being loaded.
    """

    lengths: tuple[int, ...]
    new_tokens: int
    batch: int
    repeats: int
    device: str
    dtype: str
    backend: str
    cache: str = "dynamic"
    random_weights: bool = False

    @property
    def torch_dtype(self) -> "torch.dtype":
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found


def settle(device: str | None, given: dict[str, Any]) -> Settings:
    """Settings from what was given; None stands for the default on `device`, which is the GPU if there is one."""
    device = _device(device)
    defaults = _CPU_DEFAULTS if device.partition(":")[0] == "cpu" else _GPU_DEFAULTS
    values = defaults | {key: value for key, value in given.items() if value is not None}
    return Settings(device=device, **values)


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # A number alone or an unknown word is refused here, an absent device by the allocation.
        made = torch.empty(1, device=torch.device(name))
    # Backends that torch was built without, or that come as packages, fail in ways of their own.
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise SwaaUsageError(f"--device {name}: {said}: name one that is here, such as cpu") from error
    if made.is_meta:
        raise SwaaUsageError(f"--device {name} holds no data: name one that does, such as cpu")
    return name
