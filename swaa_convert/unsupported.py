"""Why an architecture is not supported, as far as anyone looked."""

import re

from swaa_convert.families import families

_REASONS = {
    "some of its layers are windowed or chunked already": (
        "Afmoe Beam Cohere2 Cohere2Moe Cwm ExaoneMoe Flint Gemma2 Gemma3 Gemma3n Gemma4 Gemma4Unified GptOss "
        "GraniteMoeSWA GraniteSWA Kolibri1 Llama4 MiMoV2Flash Ministral ModernBertDecoder Moshi Olmo3 VaultGemma"
    ),
    "some of its layers are state-space, linear or convolutional ones": (
        "BailingHybrid Bamba FalconH1 GraniteMoeHybrid Inkling Inkling2 Inkling2Loop Jamba KimiLinear LaraMini Lfm2 "
        "Lfm2Moe Lfm3 MiniMax NemotronH OlmoHybrid Qwen3_5 Qwen3_5Moe Qwen3Next Qwen4Exp RecurrentGemma Zamba Zamba2 "
        "Zaya"
    ),
    "it has no attention": "FalconMamba Mamba Mamba2 Rwkv xLSTM",
    "it keeps keys and values compressed (multi-head latent attention), for which there is no SWAA kernel": (
        "AXK1 AXK2 DeepseekV2 DeepseekV3 DeepseekV32 DeepseekV4 Dots3Note Glm4MoeLite GlmMoeDsa HYV4 LongcatFlash "
        "MiniCPM3 Youtu"
    ),
    "its experts need code of their own, which only Qwen3-MoE has here": (
        "AriaText Dbrx Dots1 Ernie4_5_Moe FlexOlmo Glm4Moe GraniteMoe GraniteMoeShared HunYuanMoEV1 HYV3 JetMoe "
        "Laguna Mellum MiniMaxM2 MiniMaxM3VL Mixtral Olmoe PhiMoE Phimoe Qwen2Moe SolarOpen"
    ),
    "it runs some of its layers several times for each token, each time with keys and values of their own": (
        "Dory HrmText"
    ),
    "it chooses by itself what each token sees": "Doge",
    "its layers pass nothing on to their attention, which SWAA would have to reach": "Nemotron StableLm",
    "it has an attention of its own, outside of transformers' attention interface": (
        "Bloom CpmAnt DiffLlama Falcon GPTNeo Mega Mpt OpenAIGPT OpenLlama Reformer TransfoXL XGLM XLM XLNet"
    ),
    "its layers are built in another way than Llama's (they have no layers[i].self_attn)": (
        "BioGpt CodeGen CTRL GPT2 GPTBigCode GPTJ GPTNeoX GPTNeoXJapanese OPT"
    ),
    "it is an encoder that was given a language model's head": (
        "Bert BertGenerationDecoder BigBird Camembert Data2VecText Electra Ernie MegatronBert QDQBert RemBert Roberta "
        "RobertaPreLayerNorm RoCBert RoFormer XLMRoberta XLMRobertaXL Xmod"
    ),
    "it is one half of an encoder-decoder": (
        "Bart BigBirdPegasus Blenderbot BlenderbotSmall Marian MBart Musicgen MusicgenMelody Mvp Pegasus PLBart "
        "ProphetNet Speech2Text2 TrOCR Whisper XLMProphetNet"
    ),
    "it reads more than text, or bytes instead of tokens": (
        "Blt CohereCompass Emu3 Fuyu Gemma4Assistant Gemma4UnifiedAssistant Git Mllama Phi4MM Phi4Multimodal"
    ),
}
_HEAD = re.compile(r"(ForCausalLM|ForConditionalGeneration|(Model)?(With)?LMHead(Model)?)$")
_OTHER_HEAD = re.compile(r"(Model|For(?!CausalLM)[A-Z][A-Za-z]+)$")


def why_not(architecture: str) -> str:
    """What follows "SOURCE is a XxxForCausalLM"."""
    name = _HEAD.sub("", architecture)
    for reason, names in _REASONS.items():
        if name in names.split():
            return f", which can't be adapted: {reason}"
    if architecture.endswith("ForConditionalGeneration"):
        return ", which is not a language model alone: give a text-only checkpoint (XxxForCausalLM)"
    if _OTHER_HEAD.search(architecture):
        return ", which is no causal language model: give the checkpoint of an XxxForCausalLM"
    supported = sorted(family.architecture.removesuffix("ForCausalLM") for family in families())
    return f"; supported are (each with ForCausalLM) {', '.join(supported)}"
