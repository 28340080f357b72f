"""The files that converted repos carry, importable here: the rule and its settings stand in them once.

from swaa_convert.vllm.shipped.swaa_mask import attends
"""

from swaa_convert.resources import MODELING_DIR

__path__ = [str(MODELING_DIR)]
