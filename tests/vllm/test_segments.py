"""How batches are cut into pieces for paged kernels, on kernels written out in plain PyTorch."""

import torch
from swaa_convert.vllm.shipped.swaa_mask import Rule, attends

from swaa_convert.vllm.segments import Pieces, Queries, cut, halves, prefix_of_one, whole

RULES = [Rule(window, sinks, decode) for window in (1, 7, 40) for sinks in (0, 3, 60) for decode in (True, False)]


def _batch(seed: int, longest: int) -> Queries:
    """Requests in all stages, some of them padding."""
    made = torch.Generator().manual_seed(seed)
    new = torch.randint(0, longest + 1, (6,), generator=made, dtype=torch.int32)
    before = torch.randint(0, 90, (6,), generator=made, dtype=torch.int32)
    prompts = torch.randint(1, 120, (6,), generator=made, dtype=torch.int32)
    starts = torch.cat([torch.zeros(1, dtype=torch.int32), new.cumsum(0).to(torch.int32)])
    return Queries(starts, before + new, prompts)


def _expected(queries: Queries, rule: Rule, fa_tail: int, keys: int = 160) -> torch.Tensor:
    """(queries, keys) bool, by the rule."""
    rows = []
    for start, end, length, prompt in zip(
        queries.starts[:-1].tolist(),
        queries.starts[1:].tolist(),
        queries.lengths.tolist(),
        queries.prompts.tolist(),
        strict=True,
    ):
        position = torch.arange(length - (end - start), length)[:, None]
        dense = (position >= prompt - fa_tail) & rule.fa_decode
        rows.append(attends(position, torch.arange(keys)[None], dense, rule, padding=False))
    return torch.cat(rows)


def _kernel(
    starts: torch.Tensor, used: torch.Tensor, rows: int, window: int | None, causal: bool = True
) -> torch.Tensor:
    """What a paged kernel sees: (queries, keys) bool, causal from the end of the keys in use."""
    seen = torch.zeros(rows, 160, dtype=torch.bool)
    for piece, keys in enumerate(used.tolist()):
        start, end = starts[piece].item(), starts[piece + 1].item()
        for row in range(start, end):
            position = keys - (end - row)
            last = position + 1 if causal else keys
            seen[row, max(0, 0 if window is None else position - window + 1) : max(0, last)] = keys > 0
    return seen


def _seen(pieces: Pieces, rule: Rule, rows: int) -> torch.Tensor:
    plain = _kernel(pieces.starts, pieces.plain, rows, None)
    window = _kernel(pieces.starts, pieces.windowed, rows, rule.window)
    sinks = _kernel(pieces.starts, pieces.sinks(rule.keep_first), rows, None, causal=False)
    assert not (window & sinks).any(), "merging would count a key twice"
    return torch.where(pieces.plain_rows(rows)[:, None], plain, window | sinks)


def test_three_pieces_see_what_the_rule_says() -> None:
    for seed, rule in enumerate(RULES * 6):
        queries, fa_tail = _batch(seed, 60), seed % 3 * 5
        rows = int(queries.starts[-1])
        assert torch.equal(_seen(cut(queries, rule, fa_tail), rule, rows), _expected(queries, rule, fa_tail))


def test_single_queries_are_of_one_kind() -> None:
    for seed, rule in enumerate(RULES * 6):
        queries, fa_tail = _batch(seed, 1), seed % 3 * 5
        rows = int(queries.starts[-1])
        assert torch.equal(_seen(whole(queries, rule, fa_tail), rule, rows), _expected(queries, rule, fa_tail))


def test_prefix_and_window_see_what_the_rule_says() -> None:
    for seed, rule in enumerate(RULES * 6):
        queries, fa_tail = _batch(seed, 60), seed % 3 * 5
        starts, keys, prefix = halves(queries, rule, fa_tail)
        assert torch.equal(_rswa(starts, keys, prefix, rule), _expected(queries, rule, fa_tail))
        queries = _batch(seed, 1)
        prefix = prefix_of_one(queries, rule, fa_tail)
        assert torch.equal(_rswa(queries.starts, queries.lengths, prefix, rule), _expected(queries, rule, fa_tail))


def _rswa(starts: torch.Tensor, keys: torch.Tensor, prefix: torch.Tensor, rule: Rule) -> torch.Tensor:
    """The mask of a kernel that knows R-SWA."""
    rows = int(starts[-1])
    seen = _kernel(starts, keys, rows, None)
    window = _kernel(starts, keys, rows, rule.window)
    piece = torch.searchsorted(starts[1:], torch.arange(rows, dtype=starts.dtype), right=True)
    return seen & (window | (torch.arange(160)[None] < prefix[piece][:, None]))


def test_padding_rows_are_harmless() -> None:
    """A graph has more rows than queries."""
    queries = _batch(3, 1)
    pieces = whole(queries, RULES[0], 0)
    assert pieces.plain_rows(int(queries.starts[-1]) + 9).shape == (int(queries.starts[-1]) + 9,)
