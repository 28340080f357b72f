"""Where windowed layers find flash-attention."""

import pytest
import torch

from modeling import swaa_flash

torch.set_num_threads(1)


@pytest.fixture
def flash_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our stand-in for flash-attn."""
    for backend in swaa_flash.FLASH_LIBRARIES:
        monkeypatch.setitem(swaa_flash.FLASH_LIBRARIES, backend, "tests.support.flash_attn_math")
