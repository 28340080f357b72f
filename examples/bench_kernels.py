"""How fast windowed attention itself is on this GPU: `python examples/bench_kernels.py`.

Times the kernels that converted repos run, through the code they carry, for one layer of 32 query and 8 key heads in
bfloat16, by default of dimension 128 with window 2048 and 128 sinks. TFLOP/s count the pairs that attend, four
floating-point operations per dimension each; cuDNN's dense causal attention is timed in the same run. Run it from a
checkout.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modeling import swaa_flex  # noqa: E402
from modeling.swaa_flash import FLASH_LIBRARIES, two_pass_attention  # noqa: E402
from modeling.swaa_flex import flex_attention  # noqa: E402
from modeling.swaa_mask import Rule, Tokens  # noqa: E402
from modeling.swaa_state import SwaaState, dense_from_index, number_tokens, sequence_starts  # noqa: E402

HEADS, KV_HEADS = 32, 8


class Call:
    """One layer's states for a prompt, as a model that reads it makes them.

    past: tokens read before; tail: dense queries at the end; padding: left of each row; packed: lengths of sequences.
    """

    def __init__(
        self,
        new: int,
        rule: Rule,
        past: int = 0,
        tail: int = 0,
        padding: tuple[int, ...] = (),
        packed: tuple[int, ...] = (),
        backend: str = "sdpa",
        dim: int = 128,
    ) -> None:
        batch, total, device = max(1, len(padding)), past + new, torch.device("cuda")
        self.rule = Rule(rule.window, rule.keep_first, bool(tail))
        self.keys = Tokens(number_tokens(None, total, device))
        if packed:
            starts = sequence_starts(torch.cat([torch.arange(length) for length in packed])[None].to(device))
            self.keys = Tokens(self.keys.position - starts, starts)
        if padding:
            mask = (torch.arange(total) >= torch.tensor(padding)[:, None]).long()
            self.keys = Tokens(number_tokens(mask, total, device))
        queries = self.keys[past:]
        if tail:
            queries.dense = dense_from_index(total - tail, past, new, device)
        aligned = not padding and not packed
        self.state = SwaaState(backend, queries, self.keys, past, total, False, None, None, aligned)
        # Laid out as projections leave them; a cache keeps keys and values head by head.
        shapes = (batch, new, HEADS, dim), (batch, total, KV_HEADS, dim), (batch, total, KV_HEADS, dim)
        states = [torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2) for shape in shapes]
        self.query, self.key, self.value = states[:1] + [s.contiguous() if past else s for s in states[1:]]
        self.pairs = self._pairs(batch, packed)

    def _pairs(self, batch: int, packed: tuple[int, ...]) -> float:
        """Pairs that attend, in all rows: every row's sequences end where the row does."""
        place = self.state.queries.position.double()
        seen = (place + 1).clamp(max=self.rule.window)
        seen = seen + (place - self.rule.window + 1).clamp(min=0, max=self.rule.keep_first)
        if self.state.queries.dense is not None:
            seen = torch.where(self.state.queries.dense, place + 1, seen)
        rows = 1 if packed or place.shape[0] > 1 else batch
        return float(torch.where(place >= 0, seen, 0.0).sum()) * rows

    def run(self, kernel: Callable[..., Tensor]) -> Tensor:
        output = kernel(self.query, self.key, self.value, self.keys, self.state, self.rule, self.query.shape[3] ** -0.5)
        return output.transpose(1, 2).contiguous()

    def train(self, kernel: Callable[..., Tensor]) -> None:
        states = [states.requires_grad_() for states in (self.query, self.key, self.value)]
        self.run(kernel).sum().backward()
        for one in states:
            one.grad = None


def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The median of some calls, and the first call's time, which compiles."""
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    first = (time.perf_counter() - start) * 1e3
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times), first


def dense(query: Tensor, key: Tensor, value: Tensor, *_: object) -> Tensor:
    """What full attention costs, by the fastest kernel that PyTorch itself has."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def lists(call: Call) -> None:
    """Works out which blocks of keys each block of queries needs, as the first layer of a forward pass does."""
    call.state.plans.clear()
    swaa_flex._masks.clear()
    swaa_flex._shared_mask(call.query, call.keys, call.state, call.rule, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--keep-first", type=int, default=128)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--flash-attention-2", action="store_true", help="its two passes instead; needs flash-attn")
    parser.add_argument("--triton", action="store_true", help="Triton's kernels even where flash-attn-4 is installed")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("Error: no CUDA device: this measures GPU kernels")
    if options.flash_attention_2 and importlib.util.find_spec("flash_attn") is None:
        sys.exit("Error: --flash-attention-2 needs flash-attn, or the stand-in that examples/speed/README.md makes")
    if options.triton:
        swaa_flex._has_flash = lambda: False
    rule = Rule(options.window, options.keep_first, False)
    kernel, backend = flex_attention, "sdpa"
    name = f"FlexAttention, {'flash-attn-4' if swaa_flex._has_flash() else 'Triton'}"
    if options.flash_attention_2:
        kernel, backend = two_pass_attention, next(iter(FLASH_LIBRARIES))
        name = "flash-attention 2 in two passes"
    print(f"{name}; {torch.cuda.get_device_name()}, torch {torch.__version__}")
    cases: dict[str, dict[str, object]] = {
        "prompt of 32768": {"new": 32768},
        "prompt of 131072": {"new": 131072},
        "prompt of 131000": {"new": 131000},
        "4 rows of 32768, left-padded": {"new": 32768, "padding": (0, 1000, 5000, 20000)},
        "131072 in 4 packed sequences": {"new": 131072, "packed": (30000, 1000, 60072, 40000)},
        "32768 in 3 packed sequences": {"new": 32768, "packed": (10000, 1000, 21768)},
        "chunk of 32768 after 98304": {"new": 32768, "past": 98304},
    }
    if not options.flash_attention_2:
        cases["prompt of 32768, last 128 dense"] = {"new": 32768, "tail": 128}
        cases["prompt of 131072, last 128 dense"] = {"new": 131072, "tail": 128}
    for name, case in cases.items():
        call = Call(rule=rule, backend=backend, dim=options.head_dim, **case)  # type: ignore[arg-type]
        took, first = milliseconds(lambda call=call: call.run(kernel), options.repeats)  # type: ignore[misc]
        speed = 4 * options.head_dim * HEADS * call.pairs / took / 1e9
        print(f"{name:34} {took:8.2f} ms  {speed:5.0f} TFLOP/s  first call {first / 1e3:.1f} s", flush=True)
    for length in (32768, 131072):
        call = Call(length, rule, dim=options.head_dim)
        took, _ = milliseconds(lambda call=call: call.run(dense), 3)  # type: ignore[misc]
        print(f"{f'dense causal, prompt of {length}':34} {took:8.2f} ms", flush=True)
    for tail in (0, 128):
        call = Call(131072, rule, tail=tail, dim=options.head_dim)
        took, _ = milliseconds(lambda call=call: lists(call), options.repeats)  # type: ignore[misc]
        print(f"{f'block lists, 131072, last {tail} dense':34} {took:8.2f} ms, once for all layers", flush=True)
    call = Call(32768, rule, backend=backend, dim=options.head_dim)
    took, _ = milliseconds(lambda: call.train(kernel), options.repeats)
    stock, _ = milliseconds(lambda: call.train(dense), 3)
    print(f"forward and backward, 32768        {took:8.2f} ms, dense {stock:.2f} ms: {stock / took:.2f} times faster")


if __name__ == "__main__":
    main()
