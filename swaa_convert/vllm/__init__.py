"""Serves converted repos with vLLM, which finds `register` through the entry point `vllm.general_plugins`.

Imported only by vLLM: nothing else of swaa-convert needs it, and it is no dependency.
"""


def register() -> None:
    """Tells vLLM our configurations and architectures; they bring the rest. Called in each of its processes."""
    from swaa_convert.vllm.configs import register_configs
    from swaa_convert.vllm.models import register_models

    register_configs()
    register_models()
