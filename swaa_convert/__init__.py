"""Convert full-attention checkpoints to sliding-window attention (SWAA, arXiv 2512.10411)."""

__version__ = "0.1.0"
