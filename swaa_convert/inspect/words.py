"""The rule in words, and figures as people read them."""

from swaa_convert.inspect.figures import Rule
from swaa_convert.layermap import describe_layers


def rule_in_words(rule: Rule) -> list[str]:
    """What each token sees, a sentence per item."""
    if not rule.windowed_layers or rule.span is None:
        return ["Every layer keeps full attention: the model computes what its source computes."]
    return [
        _full_layers(rule),
        _windowed_layers(rule),
        *_generated_tokens(rule),
        f"A prompt of up to {rule.span:,} tokens is computed exactly as the source model computes it.",
    ]


def show_tokens(count: int) -> str:
    """32768 as 32k, 2100 as 2,100."""
    for factor, unit in ((1024**2, "M"), (1024, "k")):
        if count >= factor and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count:,}"


def show_memory(count: int) -> str:
    """Bytes in binary units, three digits."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    digits = 0 if units[0] == "B" or size >= 100 else 1 if size >= 10 else 2
    return f"{size:.{digits}f} {units[0]}"


def show_share(share: float) -> str:
    """A share of 1 in per cent, two digits."""
    percent = 100 * share
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f}%"


def _full_layers(rule: Rule) -> str:
    if not rule.full_layers:
        return f"None of the {rule.depth} layers keeps full attention."
    kept = len(rule.full_layers)
    verb = "keeps" if kept == 1 else "keep"
    return f"{kept} of {rule.depth} layers {verb} full attention: {describe_layers(rule.full_layers)}."


def _windowed_layers(rule: Rule) -> str:
    window = "itself" if rule.window == 1 else f"the last {rule.window:,} tokens, itself included"
    sinks = f", and the first {rule.keep_first:,} (sinks)" if rule.keep_first else ""
    return f"In {_the_others(rule)}, a prompt token sees {window}{sinks}."


def _the_others(rule: Rule) -> str:
    return f"the other {len(rule.windowed_layers)}" if rule.full_layers else "every layer"


def _generated_tokens(rule: Rule) -> list[str]:
    evicting = len(rule.windowed_layers) - len(rule.fa_decode_layers)
    if not rule.fa_decode_layers:
        return [f"Generated tokens see no more than that{_memory(rule)}."]
    where = f"layers {describe_layers(rule.fa_decode_layers)}" if evicting else "every layer"
    sentences = [f"A generated token sees everything in {where} (FA decode){_tail(rule)}."]
    if evicting:
        sentences.append(f"In the remaining {evicting} it sees no more than a prompt token{_memory(rule)}.")
    return sentences


def _tail(rule: Rule) -> str:
    if rule.fa_tail <= 1:
        return ", and so does the last prompt token" if rule.fa_tail else ""
    return f", and so does each of the last {rule.fa_tail:,} prompt tokens"


def _memory(rule: Rule) -> str:
    kept = (rule.span or 1) - 1
    return f", so the KV cache keeps at most {kept:,} tokens there"
