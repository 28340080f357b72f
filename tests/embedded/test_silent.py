"""Ways to get other numbers without a word: each is right, or refused."""

import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.support.embed import CACHE, VERSION, Zoo, greedy, load, logits, one, pad_left, prompt, refused_if
from tests.support.oracle import assert_close, from_position


@pytest.mark.parametrize("hidden", [slice(0, 1000), slice(0, 2047), slice(1, 2048), slice(1000, 2048)], ids=str)
def test_a_padded_row_costs_the_others_nothing(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, hidden: slice) -> None:
    """The bands stay as wide as window and block, whatever is padding in another row."""
    model, cells = zoo.model(full_layers=()), []
    blocks = sys.modules[type(model).__module__.rpartition(".")[0] + ".swaa_blocks"]
    tile = blocks._tile

    def counted(query: Any, key: Any, value: Any, queries: Any, keys: Any, mask: Any, columns: Any, *rest: Any) -> Any:
        cells.append(columns.stop - columns.start if isinstance(columns, slice) else columns.shape[1])
        return tile(query, key, value, queries, keys, mask, columns, *rest)

    monkeypatch.setattr(blocks, "_tile", counted)
    mask = torch.ones(2, 2048, dtype=torch.long)
    mask[1, hidden] = 0
    logits(model, [prompt(2048), prompt(2048, 1)], attention_mask=mask)
    assert max(cells) <= 64 + 8 + 2


def test_a_compiled_forward_pass_gives_the_cache_that_it_is_asked_for(zoo: Zoo) -> None:
    torch._dynamo.reset()
    model = torch.compile(zoo.model(), backend="eager")
    output = model(one(prompt(30)), position_ids=torch.arange(30)[None], use_cache=True)
    assert output[CACHE].get_seq_length() == 30


def test_positions_that_jump_without_beginning_anew_are_one_sequence(zoo: Zoo) -> None:
    ids, positions = one(prompt(8)), torch.arange(0, 16, 2)[None]
    assert torch.equal(
        logits(zoo.model(), ids, position_ids=positions), logits(zoo.stock(), ids, position_ids=positions)
    )


def test_a_draft_that_fails_leaves_the_model_whole(zoo: Zoo) -> None:
    model = load(zoo.repo())
    with pytest.raises((RuntimeError, NotImplementedError)):
        greedy(model, prompt(30), 8, assistant_early_exit=2, stopping_criteria=[_Stop()])
    assert model.config.num_hidden_layers == 4


def test_a_draft_in_another_thread_leaves_the_model_whole(zoo: Zoo) -> None:
    """A call that begins while another one's draft has cut the model short must not keep it so."""
    model = load(zoo.repo())
    model.config.num_hidden_layers = 2

    def restored(input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        model.config.num_hidden_layers = 4
        return torch.ones(input_ids.shape[0], dtype=torch.bool)

    greedy(model, prompt(30), 8, stopping_criteria=[restored])
    assert model.config.num_hidden_layers == 4


class _Stop:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("stopped")


@pytest.mark.parametrize("full_layers", [(), (1, 3)], ids=str)
def test_stock_flash_attention_finds_the_name_of_its_library(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, full_layers: tuple[int, ...]
) -> None:
    """A prompt within the window and FA decode run the stock kernel, which takes its name from the module's config."""
    model, seen = load(zoo.repo(full_layers=full_layers)), []

    def stock(module: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((module.config._attn_implementation, module.layer_idx, module.is_causal))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", stock)
    model.config._attn_implementation_internal = "flash_attention_2"
    model(one(prompt(5)))
    assert seen == [("flash_attention_2", layer, True) for layer in range(4)]


def _stock_flash(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **kwargs: Any) -> Any:
    """What transformers' flash-attention computes: keys that the 2D mask hides or doesn't reach are left out, and the
    last query stands at the last key that is left.
    """
    rows = []
    for row in range(query.shape[0]):
        real = torch.ones(key.shape[2]).bool() if mask is None else mask[row].bool()
        new = real[-query.shape[2] :]
        keys, values = (states[row, :, : len(real)][:, real] for states in (key, value))
        shape = (int(new.sum()), keys.shape[1])
        causal = torch.ones(shape).tril(shape[1] - shape[0]).bool()
        output = torch.zeros_like(query[row])
        output[:, new] = scaled_dot_product_attention(
            query[row][:, new], keys, values, attn_mask=causal, scale=scaling, enable_gqa=True
        )
        rows.append(output.transpose(0, 1))
    return torch.stack(rows), None


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}, {"full_layers": (), "window": 64}], ids=str)
@pytest.mark.parametrize("lengths", [(60,), (60, 12, 31)], ids=str)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_stock_flash_attention_reads_no_free_slot(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, cache: str, lengths: tuple[int, ...], recipe: dict[str, Any]
) -> None:
    """The kernel in full layers, and in windowed ones while all lies in the window. Without the library, SWAA's own
    two passes are out of reach here: blocks stand in for them.
    """
    model, rows = load(zoo.repo(**recipe)), [prompt(length, seed=length) for length in lengths]
    attention = sys.modules[type(model).__module__.rpartition(".")[0] + ".swaa_attention"]
    monkeypatch.setattr(attention, "takes_flash", lambda *args: False)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", _stock_flash)
    model.config._attn_implementation_internal = "flash_attention_2"
    inputs = pad_left(rows) if len(rows) > 1 else rows[0]
    with refused_if(cache == "static" and len(rows) == 1 and VERSION < (5, 13), NotImplementedError, "static cache"):
        actual = greedy(model, inputs, 8, **({} if cache == "dynamic" else {"cache_implementation": cache}))
        assert actual == [zoo.oracle(**recipe).greedy(row, 8) for row in rows]


def test_guidance_is_refused_where_it_would_be_windowed(zoo: Zoo) -> None:
    with pytest.raises(NotImplementedError, match="guidance_scale"):
        greedy(zoo.model(), prompt(30), 4, guidance_scale=1.5)


def test_crop_to_nothing_means_the_same_in_every_layer(zoo: Zoo) -> None:
    model = zoo.model(fa_decode=False)
    cache = model(one(prompt(6)), use_cache=True)[CACHE]
    cache.crop(0)
    assert len({layer.get_seq_length() for layer in cache.layers}) == 1


def test_virtual_tokens_before_the_prompt_make_none_of_it_dense(zoo: Zoo) -> None:
    """In prompt tuning the inputs grow after `generate` has counted them: it counts dense queries from the last."""
    model, ids = zoo.model(), prompt(40)
    ends = logits(model, [ids], dense_last=4), logits(model, [ids], dense_from=36)
    assert torch.equal(*ends)


def test_dense_from_must_fit_the_batch(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="one per row"):
        logits(zoo.model(), [prompt(20)], dense_from=torch.tensor([3, 4]))
    with pytest.raises(ValueError, match="an int or a tensor"):
        logits(zoo.model(), [prompt(20)], dense_from=3.5)


def test_a_tail_counts_real_tokens_only(zoo: Zoo) -> None:
    """Padding between the prompt and the answer."""
    ids, mask = prompt(40), torch.ones(1, 40, dtype=torch.long)
    mask[0, 20:25] = 0
    labels = torch.where(torch.arange(40) < 25, -100, torch.tensor(ids))[None]
    actual = logits(zoo.model(fa_tail=3), [ids], attention_mask=mask, labels=labels)[0, mask[0].bool()]
    real = ids[:20] + ids[25:]
    rope = [*range(20), *range(25, 40)]
    assert_close(actual, zoo.oracle(fa_tail=3).logits(real, from_position(17), rope=rope))
