"""Train the demo checkpoint, a small Qwen3 with full attention, and write it to examples/needle-qwen3.

    pip install .
    python examples/train_needle.py --out examples/needle-qwen3

Needs one CUDA device and two minutes of an H200. The task is the demo's own (swaa_convert/demo/task.py). What
makes it learn: weights that start at 1/sqrt(fan-in), first copying repeated random text, then longer and longer
diaries, each with many questions. `swaa-convert demo --checkpoint DIR` shows what recipes do to the result.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import needle_files
import torch
from needle_batches import FIXED_WORD, Batch, CopyLayout, Layout
from transformers import Qwen3Config, Qwen3ForCausalLM

from swaa_convert.demo import task


@dataclass(frozen=True)
class Stage:
    """Layouts taken in turn until the first reaches `target` accuracy in both modes, or for `steps` at most."""

    layouts: tuple[Layout | CopyLayout, ...]
    steps: int
    target: float = 0.98


def curriculum(scale: float, final_steps: int) -> list[Stage]:
    """Copying, then diaries of 64 to 2016 tokens; `scale` multiplies the rows of every batch."""

    def rows(count: int) -> int:
        return max(2, 2 * int(count * scale / 2))

    copy = [CopyLayout(half, rows(12288 // (2 * half))) for half in (64, 128, 256, 512)]
    diaries = [
        Layout(8, 4, rows(72)),
        Layout(16, 6, rows(48)),
        Layout(32, 8, rows(36)),
        Layout(60, 8, rows(24)),
        Layout(124, 8, rows(12)),
        Layout(252, 12, rows(6)),
    ]
    stages = [Stage((copy[0],), 2500)]
    for index, layout in enumerate(diaries):
        others = diaries[max(0, index - 1) : index]
        stages.append(Stage((layout, layout, *others, layout, copy[min(index, 3)]), 6000))
    last = (diaries[4], diaries[5], diaries[3], diaries[4], diaries[5], diaries[2], diaries[4], copy[3])
    return [*stages, Stage(last, final_steps, target=2.0)]


def build_model(width: int, layers: int, device: str) -> Qwen3ForCausalLM:
    """A Qwen3 in float32 that starts at 1/sqrt(fan-in): from the default start it never learns to look back."""
    model = Qwen3ForCausalLM(Qwen3Config(**needle_files.shape(width, layers))).to(device)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data /= math.sqrt(2 * layers)
    torch.nn.init.normal_(model.model.embed_tokens.weight)
    return model


def predict(model: Qwen3ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T - 1, vocabulary] for all tokens [B, T] but the first."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda, cache_enabled=False):
        return model.lm_head(hidden_states(model, ids[:, :-1])).float()


def hidden_states(model: Qwen3ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The last hidden states [B, T, width], every layer with plain causal attention.

    The layers are called one by one because the model's own forward builds masks on the host, which a CUDA graph
    cannot hold.
    """
    body = model.model
    hidden = body.embed_tokens(ids)
    rope = body.rotary_emb(hidden, torch.arange(ids.shape[1], device=ids.device)[None])
    for layer in body.layers:
        hidden = layer(hidden, attention_mask=None, position_embeddings=rope)
    return body.norm(hidden)


def accuracies(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The share of surnames that are found, [2]: directly, and by thinking."""
    right = (logits.argmax(-1) == batch.ids[:, 1:]).float()
    chosen = [batch.kinds[:, 1:] == mode for mode in (0, 1)]
    return torch.stack([(right * mode).sum() / mode.sum() for mode in chosen])


@contextmanager
def deterministic() -> Iterator[None]:
    """Sums in a fixed order, so that a seed gives the same weights again: flash attention's backward needs it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Trainer:
    """One optimizer over all layouts; every layout's step is a CUDA graph, since launches are what costs."""

    def __init__(self, model: Qwen3ForCausalLM, device: str) -> None:
        self.model = model
        self.device = device
        self.sampler = task.Sampler(device)
        self.rate = torch.tensor(0.0, device=device)
        cuda = device == "cuda"
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.rate, betas=(0.9, 0.98), weight_decay=0.01, capturable=cuda, fused=cuda
        )
        self.accuracy: dict[str, torch.Tensor] = {}
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle() if cuda else None
        self.total = 0

    def run(self, layout: Layout | CopyLayout) -> None:
        """One step, replayed from a CUDA graph where there is one."""
        self.total += 1
        if layout.name not in self.accuracy:
            self.accuracy[layout.name] = torch.zeros(2, device=self.device)
        if self.device != "cuda":
            self.step(layout)
        elif layout.name in self.graphs:
            self.graphs[layout.name].replay()
        else:
            self.graphs[layout.name] = self.capture(layout)

    def step(self, layout: Layout | CopyLayout) -> None:
        """Draw a batch, learn from it, and keep a running accuracy per mode."""
        batch = layout.draw(self.sampler)
        kinds, wanted = batch.kinds[:, 1:], batch.ids[:, 1:]
        logits = predict(self.model, batch.ids)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        # The reply's fixed words are easy: they must not outweigh the surnames.
        weights = (kinds < FIXED_WORD).float() + (kinds == FIXED_WORD) * 0.1
        self.optimizer.zero_grad(set_to_none=True)
        with deterministic():
            ((losses * weights.flatten()).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # Copying has no direct mode, which counts as learned.
        self.accuracy[layout.name].lerp_(torch.nan_to_num(accuracies(logits, batch), nan=1.0), 0.04)

    def capture(self, layout: Layout | CopyLayout) -> torch.cuda.CUDAGraph:
        """The layout's step as a graph, after warm-up steps on a stream of their own."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step(layout)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self.step(layout)
        return graph


def train(trainer: Trainer, stages: list[Stage], options: argparse.Namespace) -> None:
    """Every stage in order; the weights are written after each, and `--minutes` ends the whole."""
    began = time.monotonic()
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        for step in range(stage.steps):
            left = 1 - step / stage.steps if last else 1.0
            trainer.rate.fill_(learning_rate(options.rate, trainer.total, left))
            trainer.run(stage.layouts[step % len(stage.layouts)])
            minutes = (time.monotonic() - began) / 60
            if step % 100 == 99 and (settled(trainer, stage, f"{minutes:5.2f} min") or minutes > options.minutes):
                break
        needle_files.write_repo(trainer.model, options.out)
        if time.monotonic() - began > 60 * options.minutes:
            return


def learning_rate(peak: float, step: int, left: float) -> float:
    """Warm up over 200 steps; fall over the last stage, of which the share `left` is to come."""
    return peak * min(1.0, step / 200) * max(0.02, min(1.0, 1.25 * left))


def settled(trainer: Trainer, stage: Stage, clock: str) -> bool:
    """Print the accuracies, and say whether the stage's first layout is learned."""
    values = {layout.name: trainer.accuracy[layout.name].tolist() for layout in stage.layouts}
    shown = [f"{name} {direct:.3f}/{thinking:.3f}" for name, (direct, thinking) in values.items()]
    print(f"{clock}, step {trainer.total}: {', '.join(shown)}", flush=True)
    return min(values[stage.layouts[0].name]) > stage.target


@torch.no_grad()
def report(trainer: Trainer, lines: int, rows: int) -> None:
    """Print the share of surnames found in fresh diaries, per mode."""
    batch = Layout(lines, 2, rows).draw(trainer.sampler)
    direct, thinking = accuracies(predict(trainer.model, batch.ids), batch).tolist()
    print(f"{lines * task.LINE} tokens, full attention: {direct:.4f} direct, {thinking:.4f} thinking", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "needle-qwen3")
    parser.add_argument("--seed", type=int, default=11, help="the model's card says why it is 11")
    parser.add_argument("--minutes", type=float, default=10, help="stop training after this long, learned or not")
    parser.add_argument("--final-steps", type=int, default=1500, help="steps of the last stage, on all lengths")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the rows of every batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # cuBLAS reads this when it starts; without it, sums may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    model = build_model(options.width, options.layers, options.device)
    trainer = Trainer(model, options.device)
    train(trainer, curriculum(options.scale, options.final_steps), options)
    for lines in (32, 60, 124, 252):
        report(trainer, lines, rows=256 if options.device == "cuda" else 8)


if __name__ == "__main__":
    main()
