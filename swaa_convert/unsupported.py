"""Why an architecture is not supported, as far as anyone looked."""

import re

from swaa_convert.families import families

_REASONS = {
    "some of its layers are windowed or chunked already": (
        "Cohere2 Cohere2Moe Cwm Gemma2 Gemma3 Gemma3n Gemma4 GptOss Llama4 MiMoV2Flash Ministral ModernBertDecoder "
        "Olmo3 VaultGemma"
    ),
    "some of its layers are state-space, linear or convolutional ones": (
        "Bamba FalconH1 GraniteMoeHybrid Jamba KimiLinear Lfm2 Lfm2Moe MiniMax NemotronH OlmoHybrid Qwen3Next Qwen3_5 "
        "Qwen3_5Moe RecurrentGemma Zamba Zamba2"
    ),
    "it has no attention": "FalconMamba Mamba Mamba2 Rwkv xLSTM",
    "it keeps keys and values compressed (multi-head latent attention), for which there is no SWAA kernel": (
        "DeepseekV2 DeepseekV3 DeepseekV32 DeepseekV4 Glm4MoeLite GlmMoeDsa LongcatFlash MiniCPM3 Youtu"
    ),
    "its experts need code of their own, which only Qwen3-MoE has here": (
        "Dbrx Dots1 Ernie4_5_Moe FlexOlmo Glm4Moe GraniteMoe GraniteMoeShared HunYuanMoEV1 JetMoe MiniMaxM2 Mixtral "
        "Olmoe Phimoe Qwen2Moe SolarOpen"
    ),
    "its layers pass nothing on to their attention, which SWAA would have to reach": "Nemotron StableLm",
    "it has an attention of its own, outside of transformers' attention interface": (
        "Bloom CpmAnt DiffLlama Falcon GPTNeo Mpt OpenAIGPT XGLM"
    ),
    "its layers are built in another way than Llama's (they have no layers[i].self_attn)": (
        "BioGpt CTRL CodeGen GPT2 GPTBigCode GPTJ GPTNeoX OPT"
    ),
}
_HEAD = re.compile(r"(ForCausalLM|ForConditionalGeneration|LMHeadModel)$")


def why_not(architecture: str) -> str:
    """What follows "SOURCE is a XxxForCausalLM"."""
    name = _HEAD.sub("", architecture)
    for reason, names in _REASONS.items():
        if name in names.split():
            return f", which can't be adapted: {reason}"
    if architecture.endswith("ForConditionalGeneration"):
        return ", which is not a language model alone: give a text-only checkpoint (XxxForCausalLM)"
    return f"; supported are {', '.join(sorted(family.architecture for family in families()))}"
