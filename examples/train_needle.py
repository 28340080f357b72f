"""Train the demo checkpoint, a small Qwen3 with full attention, and write it to examples/needle-qwen3.

    python examples/train_needle.py --out examples/needle-qwen3

Needs torch, transformers and one CUDA device (about ten minutes on an H100). The task is the demo's own
(swaa_convert/demo/task.py). What made it learn: weights that start at 1/sqrt(fan-in), first copying repeated
random text, then longer and longer diaries, each with many questions.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import needle_files
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from swaa_convert.demo import task
from swaa_convert.demo.words import FIRST_WORD, VOCABULARY

REPLIES = (task.ANSWER, task.THINKING + " " + task.ANSWER)  # direct, thinking


@dataclass(frozen=True)
class Layout:
    """The fixed shape of a training batch: rows of diaries with that many lines and questions."""

    lines: int
    questions: int
    rows: int

    @property
    def name(self) -> str:
        return f"{self.lines * task.LINE} tokens"


@dataclass(frozen=True)
class CopyLayout:
    """Random text of `half` tokens that is repeated once."""

    half: int
    rows: int

    @property
    def name(self) -> str:
        return f"copy {self.half}"


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

    copy = [CopyLayout(half, rows(32768 // (2 * half))) for half in (64, 128, 256, 512)]
    diaries = [
        Layout(8, 4, rows(192)),
        Layout(16, 6, rows(128)),
        Layout(32, 8, rows(96)),
        Layout(60, 8, rows(64)),
        Layout(124, 8, rows(32)),
        Layout(252, 12, rows(16)),
    ]
    stages = [Stage((copy[0],), 2500)]
    for index, layout in enumerate(diaries):
        others = diaries[max(0, index - 1) : index]
        stages.append(Stage((layout, layout, *others, layout, copy[min(index, 3)]), 6000))
    last = (diaries[4], diaries[5], diaries[3], diaries[4], diaries[5], diaries[2], diaries[4], copy[3])
    return [*stages, Stage(last, final_steps, target=2.0)]


@functools.cache
def supervised(layout: Layout, first: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The supervised columns [U] of `conversations`, and each one's kind [U].

    The kind is the mode (0 or 1) where the surname is found, else 2. Cached, because a CUDA graph cannot hold a
    copy from the host.
    """
    columns: list[int] = []
    kinds: list[int] = []
    end = layout.lines * task.LINE
    for turn in range(layout.questions):
        mode = (first + turn) % 2
        reply = task.split(REPLIES[mode])
        end += task.overhead(thinking=mode == 1)
        columns += range(end, end + len(reply))
        kinds += [mode if word == "{surname}" else 2 for word in reply]
        end += len(reply) + 1
    return torch.tensor(columns, device=device), torch.tensor(kinds, device=device)


def conversations(sampler: task.Sampler, layout: Layout, first: int) -> torch.Tensor:
    """Half a batch, token ids [rows / 2, T], whose questions alternate between the modes from mode `first` on."""
    diary = sampler.diaries(layout.rows // 2, layout.lines)
    facts = diary.facts(sampler.picks(layout.rows // 2, diary.city.shape[1], layout.questions))
    pieces: list[torch.Tensor] = []
    for turn in range(layout.questions):
        slots = {slot: ids[:, turn] for slot, ids in facts.items()}
        mode = (first + turn) % 2
        templates = [task.QUESTION, task.REPLY, *([] if mode else [task.DIRECT]), REPLIES[mode], "\n"]
        pieces.append(task.fill(task.ASK, **slots))
        pieces += [diary.tokens] if turn == 0 else []
        pieces += [task.fill(template, **slots) for template in templates]
    return torch.cat(pieces, 1)


def diary_batch(sampler: task.Sampler, layout: Layout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids [rows, T], supervised columns [rows, U] and their kinds [rows, U]; half the rows per order."""
    rows = layout.rows // 2
    plans = [supervised(layout, first, str(sampler.device)) for first in (0, 1)]
    return (
        torch.cat([conversations(sampler, layout, first) for first in (0, 1)]),
        torch.cat([columns.expand(rows, -1) for columns, _ in plans]),
        torch.cat([kinds.expand(rows, -1) for _, kinds in plans]),
    )


def copy_batch(sampler: task.Sampler, layout: CopyLayout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `diary_batch`: every token of the second half is supervised, as if found by thinking."""
    span = len(VOCABULARY) - FIRST_WORD
    once = FIRST_WORD + (sampler.uniform(layout.rows, layout.half) * span).long().clamp_(max=span - 1)
    columns = torch.arange(layout.half, 2 * layout.half, device=once.device).expand(layout.rows, -1)
    return torch.cat([once, once], 1), columns, torch.ones_like(columns)


def build_model(width: int, layers: int, device: str) -> Qwen3ForCausalLM:
    """A Qwen3 in float32 that starts at 1/sqrt(fan-in): from the default start it never learns to look back."""
    config = Qwen3Config(**needle_files.shape(width, layers))
    model = Qwen3ForCausalLM(config).to(device)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data /= math.sqrt(2 * layers)
    torch.nn.init.normal_(model.model.embed_tokens.weight)
    return model


def hidden_states(
    model: Qwen3ForCausalLM, ids: torch.Tensor, masks: list[torch.Tensor | None] | None = None
) -> torch.Tensor:
    """The last hidden states [B, T, width]; `masks` gives each layer its own, None is plain causal attention.

    The layers are called one by one because the model's own forward builds masks on the host, which a CUDA graph
    cannot hold.
    """
    body = model.model
    hidden = body.embed_tokens(ids)
    rope = body.rotary_emb(hidden, torch.arange(ids.shape[1], device=ids.device)[None])
    for index, layer in enumerate(body.layers):
        mask = masks[index] if masks else None
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope)
    return body.norm(hidden)


def predictions(
    model: Qwen3ForCausalLM, ids: torch.Tensor, columns: torch.Tensor, masks: list[torch.Tensor | None] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, U, vocabulary] for the tokens in `columns` [B, U], and those tokens [B, U]."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda, cache_enabled=False):
        hidden = hidden_states(model, ids[:, :-1], masks)
        before = (columns - 1)[..., None].expand(-1, -1, hidden.shape[-1])
        logits = model.lm_head(hidden.gather(1, before))
    return logits.float(), ids.gather(1, columns)


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

    def step(self, layout: Layout | CopyLayout) -> None:
        """Draw a batch, learn from it, and keep a running accuracy per mode."""
        draw = copy_batch if isinstance(layout, CopyLayout) else diary_batch
        ids, columns, kinds = draw(self.sampler, layout)
        logits, wanted = predictions(self.model, ids, columns)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        # The reply's fixed words are easy: they must not outweigh the surnames.
        weights = torch.where(kinds.flatten() < 2, 1.0, 0.1)
        self.optimizer.zero_grad(set_to_none=True)
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        right = (logits.argmax(-1) == wanted).float()
        modes = torch.stack([right.mul(kinds == mode).sum() / (kinds == mode).sum() for mode in (0, 1)])
        self.accuracy[layout.name].lerp_(torch.nan_to_num(modes, nan=1.0), 0.04)

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


def seen(window: int, sinks: int, dense_from: int, length: int, device: str) -> torch.Tensor:
    """The mask of a windowed layer [1, 1, length, length]; True where query i sees key j."""
    i = torch.arange(length, device=device)[:, None]
    j = torch.arange(length, device=device)
    return ((j <= i) & ((j < sinks) | (i - j < window) | (i >= dense_from)))[None, None]


@torch.no_grad()
def story(model: Qwen3ForCausalLM, lines: int, rows: int, window: int, batches: int) -> dict[str, list[float]]:
    """Share of fully right replies per recipe and mode, for the training log: a first look at the demo's table."""
    device = next(model.parameters()).device.type
    layers = len(model.model.layers)
    odd, even, quarter = range(1, layers, 2), range(0, layers, 2), range(1, layers, 4)
    never = 1 << 30
    recipes: dict[str, tuple[int, int | None, tuple[int, ...]]] = {
        "full": (0, None, tuple(range(layers))),
        "naive": (0, None, ()),
        "sinks": (8, None, ()),
        "decode": (0, 0, ()),
        "decode+sinks": (8, 0, ()),
        "decode+sinks+tail16": (8, 16, ()),
        "odd": (0, None, tuple(odd)),
        "even": (0, None, tuple(even)),
        "sinks+odd": (8, None, tuple(odd)),
        "sinks+even": (8, None, tuple(even)),
        "decode+sinks+odd": (8, 0, tuple(odd)),
        "decode+sinks+even": (8, 0, tuple(even)),
        "decode+sinks+quarter": (8, 0, tuple(quarter)),
        "decode+sinks+tail+odd": (8, 16, tuple(odd)),
        "decode+sinks+tail+even": (8, 16, tuple(even)),
    }
    for layer in range(layers):
        recipes[f"all windowed but {layer}"] = (8, None, (layer,))
        recipes[f"none windowed but {layer}"] = (8, None, tuple(set(range(layers)) - {layer}))
    found: dict[str, list[float]] = {name: [0.0, 0.0] for name in recipes}
    sampler = task.Sampler(device)
    layout = Layout(lines, 1, 2 * rows)
    for mode in (0, 1):
        for _ in range(batches):
            ids = conversations(sampler, layout, mode)
            columns, _ = supervised(layout, mode, device)
            length, prompt = ids.shape[1] - 1, int(columns[0])
            for name, (sinks, tail, full) in recipes.items():
                dense_from = never if tail is None else prompt - tail
                mask = seen(window, sinks, dense_from, length, device)
                masks = [None if layer in full else mask for layer in range(layers)]
                logits, wanted = predictions(model, ids, columns.expand(rows, -1), masks)
                found[name][mode] += float((logits.argmax(-1) == wanted).all(1).float().mean()) / batches
    return found


def report(model: Qwen3ForCausalLM, lines: int, rows: int, batches: int = 2) -> None:
    print(f"window 64, {lines * task.LINE} tokens, {rows * batches} diaries: direct / thinking", flush=True)
    for name, (direct, thinking) in story(model, lines, rows, 64, batches).items():
        print(f"  {name:28} {direct:.3f} / {thinking:.3f}", flush=True)


def learning_rate(peak: float, step: int, left: float) -> float:
    """Warm up over 200 steps; fall to nothing over the last stage, of which `left` (1 to 0) is to come."""
    return peak * min(1.0, step / 200) * max(0.02, min(1.0, 1.25 * left))


def train(trainer: Trainer, stages: list[Stage], options: argparse.Namespace) -> None:
    """Every stage in order; `--minutes` ends the whole, whatever stage it is in."""
    began = time.monotonic()
    for number, stage in enumerate(stages):
        if number < options.stage:
            continue
        last = number == len(stages) - 1
        for step in range(stage.steps):
            left = 1 - step / stage.steps if last else 1.0
            trainer.rate.fill_(learning_rate(options.rate, trainer.total, left))
            trainer.run(stage.layouts[step % len(stage.layouts)])
            if step % 100 == 99 and settled(trainer, stage, number, step, began, options):
                break
        needle_files.save(trainer.model, options.out)
        if time.monotonic() - began > 60 * options.minutes:
            return


def settled(
    trainer: Trainer, stage: Stage, number: int, step: int, began: float, options: argparse.Namespace
) -> bool:
    """Print how it goes; whether the stage's first layout is learned, or the time is up."""
    values = {layout.name: trainer.accuracy[layout.name].tolist() for layout in stage.layouts}
    minutes = (time.monotonic() - began) / 60
    if step % options.log == options.log - 1:
        shown = ", ".join(f"{name} {direct:.3f}/{think:.3f}" for name, (direct, think) in values.items())
        print(f"{minutes:5.2f} min, stage {number}, step {step + 1}: {shown}", flush=True)
    return min(values[stage.layouts[0].name]) > stage.target or minutes > options.minutes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "needle-qwen3")
    parser.add_argument("--minutes", type=float, default=12, help="stop training after this long")
    parser.add_argument("--final-steps", type=int, default=6000, help="steps of the last stage")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the rows of every batch")
    parser.add_argument("--log", type=int, default=200, help="steps between log lines")
    parser.add_argument("--report", type=int, nargs="*", default=[124], help="lines of the diaries reported on")
    parser.add_argument("--stage", type=int, default=0, help="start at this stage, from the weights in --resume")
    parser.add_argument("--resume", type=Path, help="folder with weights to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    model = build_model(options.width, options.layers, options.device)
    if options.resume:
        model.load_state_dict(needle_files.load_weights(options.resume))
    trainer = Trainer(model, options.device)
    train(trainer, curriculum(options.scale, options.final_steps), options)
    for lines in options.report:
        report(model, lines, rows=64 if options.device == "cuda" else 8)
    needle_files.save(model, options.out)


if __name__ == "__main__":
    main()
