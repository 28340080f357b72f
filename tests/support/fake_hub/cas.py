"""Xet storage for the fake Hub: content comes as blocks (xorbs) of chunks, and shards say which chunks make a file.

Only what hf_xet needs to send: chunks must be uncompressed, and each file is put together and hashed at once.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.fake_hub.handler import Handler

PREFIX = "cas"
_HEADER = _ENTRY = 48
_HAS_PROOFS, _HAS_SHA256 = 0x8000_0000, 0x4000_0000
_END = b"\xff" * 32


def token(ask: "Handler") -> None:
    """Where to send, and for how long: older clients read the headers, newer ones the body."""
    url, until = f"{ask.hub.url}/{PREFIX}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "cas-token", "X-Xet-Token-Expiration": str(until)}
    ask.reply({"casUrl": url, "accessToken": "cas-token", "exp": until}, headers=headers)


def answer(ask: "Handler") -> None:
    """Takes blocks and shards in the first version of the protocol, which the client falls back to."""
    what = ask.parts[1:]
    if what[:2] == ["v1", "xorbs"]:
        ask.hub.xorbs[what[-1]] = list(_chunks(ask.body))
        return ask.reply({"was_inserted": True})
    if what[-1] == "shards" and what[0] != "v2":
        for sha256, data in _files(ask.body, ask.hub.xorbs):
            if hashlib.sha256(data).hexdigest() != sha256:
                return ask.refuse(400)
            ask.hub.objects[sha256] = data
        return ask.reply({"result": 1})
    ask.refuse(404)


def _chunks(xorb: bytes) -> Iterator[bytes]:
    position = 0
    while position + 8 <= len(xorb) and xorb[position] == 0:
        assert xorb[position + 4] == 0, "a compressed chunk"
        start, size = position + 8, int.from_bytes(xorb[position + 1 : position + 4], "little")
        position = start + size
        yield xorb[start:position]


def _files(shard: bytes, xorbs: dict[str, list[bytes]]) -> Iterator[tuple[str, bytes]]:
    """(SHA-256 as announced, content) of each file."""
    position = _HEADER
    while shard[position : position + 32] != _END:
        flags, count = _number(shard, position + 32), _number(shard, position + 36)
        first = position + _ENTRY
        entries = [shard[start : start + _ENTRY] for start in range(first, first + count * _ENTRY, _ENTRY)]
        position = first + count * _ENTRY * (2 if flags & _HAS_PROOFS else 1)
        assert flags & _HAS_SHA256
        parts = [xorbs[_hash(entry)][_number(entry, 40) : _number(entry, 44)] for entry in entries]
        yield _hash(shard[position:]), b"".join(chunk for part in parts for chunk in part)
        position += _ENTRY


def _number(data: bytes, start: int) -> int:
    return int.from_bytes(data[start : start + 4], "little")


def _hash(data: bytes) -> str:
    """A hash as it is written: four numbers of eight bytes."""
    return b"".join(data[start : start + 8][::-1] for start in range(0, 32, 8)).hex()
