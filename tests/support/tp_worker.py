"""One process of a tensor-parallel run: `python -m torch.distributed.run … tp_worker.py REPO OUT [stock]`."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from tests.support.embed import greedy, logits, prompt

IDS = prompt(90)


def main(repo: str, out: str) -> None:
    """Loads the model over all processes, and leaves what it computed in the file `out`."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, tp_plan="auto")
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 10_000, 10_001
    weight = model.model.layers[0].self_attn.q_proj.weight
    width = getattr(weight, "_local_tensor", weight).shape[0]
    inputs = {"input_ids": torch.tensor([IDS], device=model.device)}
    found = {"logits": logits(model, **inputs).cpu(), "tokens": greedy(model, inputs, 8), "width": width}
    if dist.get_rank() == 0:
        torch.save(found, Path(out))
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a process that takes its leave in order


if __name__ == "__main__":
    main(*sys.argv[1:])
