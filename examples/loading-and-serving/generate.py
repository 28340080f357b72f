"""Asks a converted model one question: `python generate.py ./q3-swaa --prompt-file contract.txt "Who pays?"`.

Under `torchrun --nproc-per-node N` every layer is split over N devices; otherwise whole layers are spread over the
devices that there are.
"""

import argparse
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a converted repo: a folder or a Hub id")
    parser.add_argument("question")
    parser.add_argument("--prompt-file", type=Path, help="a long text that stands before the question")
    parser.add_argument("--revision", help="the repo's commit on the Hub: its code is run, so pin it")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    options = parser.parse_args()
    several = "WORLD_SIZE" in os.environ
    placed = {"tp_plan": "auto"} if several else {"device_map": "auto"}
    pinned = {"revision": options.revision, "trust_remote_code": True}
    tokenizer = AutoTokenizer.from_pretrained(options.model, **pinned)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto", **placed, **pinned)
    text = options.prompt_file.read_text(encoding="utf-8") + "\n\n" if options.prompt_file else ""
    chat = [{"role": "user", "content": text + options.question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs.to(model.device), max_new_tokens=options.max_new_tokens, do_sample=False)
    if not several or torch.distributed.get_rank() == 0:
        print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True), flush=True)
    if several:
        torch.distributed.barrier()
        # On CPUs, threads of the communication may abort a process that takes its leave in order.
        os._exit(0)


if __name__ == "__main__":
    main()
