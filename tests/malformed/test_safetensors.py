"""Damaged weight files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.malformed.damage import (
    FIRST,
    SECOND,
    SINGLE,
    Cases,
    after_sharding,
    cut,
    entries,
    header,
    huge,
    refuses,
    tensors,
    write,
)

AGAIN = "fetch the source again"
NORM = "model.norm.weight"
CASES: Cases = {
    "empty": (write(SINGLE, b""), "its header runs past its end"),
    "seven bytes": (write(SINGLE, b"1234567"), "its header runs past its end"),
    "header of no bytes": (header(b""), "is damaged"),
    "cut in the data": (cut(SINGLE, 10), "bytes of data but holds"),
    "cut in the header": (lambda source: os.truncate(source / SINGLE, 100), "its header runs past its end"),
    "longer than it says": (lambda source: os.truncate(source / SINGLE, 900_000), "bytes of data but holds 8"),
    "header of 4 exabytes": (header(b"{}", 2**62), "its header runs past its end"),
    "header of all ones": (header(b"{}", 2**64 - 1), "its header runs past its end"),
    "header of 200 MB": (lambda source: (header(b"{}", 200_000_000)(source), huge(SINGLE)(source)), "absurdly large"),
    "header is no JSON": (header(b"{{{{"), "is damaged"),
    "header is a list": (header(b"[1]"), "is no JSON object"),
    "header is no UTF-8": (header(b'{"\xff": 1}'), "not UTF-8"),
    "header in UTF-16": (header("{}".encode("utf-16")), "byte-order mark"),
    "header nested deeply": (header(b'{"a":' * 100_000), "nested too deeply"),
    "header with NaN": (header('{"a": NaN}'), "NaN is no number"),
    "a tensor twice": (header('{"a": {}, "a": {}}'), "'a' stands twice"),
    "overlap": (entries(3, a=("U8", [2], [0, 2]), b=("U8", [2], [1, 3])), "the data of b overlaps"),
    "hole": (entries(5, a=("U8", [2], [0, 2]), b=("U8", [2], [3, 5])), "leaves a gap"),
    "hole at the start": (entries(3, a=("U8", [2], [1, 3])), "leaves a gap"),
    "negative offset": (entries(2, a=("U8", [2], [-2, 0])), "data_offsets [-2, 0]"),
    "offsets backwards": (entries(2, a=("U8", [2], [2, 0])), "data_offsets [2, 0]"),
    "offset beyond 64 bits": (entries(2, a=("U8", [2**70], [0, 2**70])), "bytes of data but holds"),
    "offset past the end": (entries(2, a=("U8", [200], [0, 200])), "bytes of data but holds"),
    "offset is no whole number": (entries(2, a=("U8", [2], [0, 2.0])), "data_offsets [0, 2.0]"),
    "one offset": (entries(2, a=("U8", [2], [2])), "data_offsets [2]"),
    "offsets are text": (entries(2, a=("U8", [2], "02")), "data_offsets '02'"),
    "no offsets": (header('{"a": {"dtype": "U8", "shape": [0]}}'), "a has no dtype, shape and data_offsets"),
    "no shape": (header('{"a": {"dtype": "U8", "data_offsets": [0, 0]}}'), "a has no dtype, shape and data_offsets"),
    "entry is a number": (header('{"a": 3}'), "a has no dtype, shape and data_offsets"),
    "unknown dtype": (entries(2, a=("Q8", [2], [0, 2])), "unknown dtype 'Q8'"),
    "dtype is a number": (entries(2, a=(8, [2], [0, 2])), "unknown dtype 8"),
    "too few bytes for the dtype": (entries(2, a=("F32", [2], [0, 2])), "a holds 2 bytes, which F32 of shape [2]"),
    "too many bytes for the shape": (entries(8, a=("F16", [3], [0, 8])), "a holds 8 bytes, which F16 of shape [3]"),
    "half a byte": (entries(1, a=("F4", [1], [0, 1])), "a holds 1 bytes, which F4 of shape [1]"),
    "negative shape": (entries(2, a=("U8", [-2], [0, 2])), "a has the shape [-2]"),
    "shape of text": (entries(2, a=("U8", ["2"], [0, 2])), "a has the shape ['2']"),
    "shape of a hundred": (entries(1, a=("U8", [1] * 100, [0, 1])), "a has the shape [1, 1"),
    "shape of true": (entries(1, a=("U8", [True], [0, 1])), "a has the shape [True]"),
    "metadata of numbers": (header('{"__metadata__": {"a": 1}}'), "__metadata__ is not text"),
    "metadata is a list": (header('{"__metadata__": []}'), "__metadata__ is not text"),
}
SHARDS: Cases = {
    "the second cut": (cut(SECOND, 3), SECOND, "bytes of data but holds"),
    "the first emptied": (write(FIRST, b""), FIRST, "its header runs past its end"),
    "the same twice": (
        lambda source: (source / SECOND).write_bytes((source / FIRST).read_bytes()),
        f"{SECOND} holds model.embed_tokens.weight",
    ),
}
UNFIT: Cases = {
    "missing": (tensors(lambda w: w.pop(NORM)), f"{NORM} is missing"),
    "unexpected": (tensors(lambda w: w.update(extra=torch.ones(2))), "extra is unexpected"),
    "another shape": (tensors(lambda w: w.update({NORM: torch.ones(5)})), f"{NORM} is of the wrong shape"),
    "another rank": (tensors(lambda w: w.update({NORM: torch.ones(64, 1)})), f"{NORM} is of the wrong shape"),
    "whole numbers": (tensors(lambda w: w.update({NORM: torch.ones(64, dtype=torch.int8)})), f"{NORM} is I8"),
    "truth values": (tensors(lambda w: w.update({NORM: torch.ones(64, dtype=torch.bool)})), f"{NORM} is BOOL"),
    "complex numbers": (tensors(lambda w: w.update({NORM: torch.ones(64, dtype=torch.complex64)})), f"{NORM} is C64"),
    "none at all": (tensors(lambda w: w.clear()), "is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_damaged(case: str, source: Path) -> None:
    refuses(source, CASES[case][0], f"{SINGLE} is damaged (", *CASES[case][1:], AGAIN)


@pytest.mark.parametrize("case", SHARDS)
def test_damaged_shards(case: str, source: Path) -> None:
    refuses(source, after_sharding(SHARDS[case][0]), *SHARDS[case][1:], AGAIN)


@pytest.mark.parametrize("case", UNFIT)
def test_weights_that_do_not_fit(case: str, source: Path) -> None:
    refuses(source, UNFIT[case][0], *UNFIT[case][1:], "config.json", AGAIN)


@pytest.mark.parametrize("size", [200_000_000, 2**62])
def test_an_absurd_header_is_not_read(size: int, source: Path) -> None:
    header(b"{}", size)(source)
    huge(SINGLE)(source)
    script = (
        "import resource, sys; from pathlib import Path; from swaa_convert.weights import read_header\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_header(Path(sys.argv[1]), 'it')\n"
        "except Exception as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    result = subprocess.run([sys.executable, "-c", script, source / SINGLE], capture_output=True, text=True, check=True)
    said, grown = result.stdout.splitlines()
    assert said.startswith("it is damaged") and int(grown) < 20_000
