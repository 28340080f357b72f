"""A Hub on this machine: as much of its HTTP interface as the real client needs to download and to push a model."""

from tests.support.fake_hub.hub import COMMIT, READER, TOKEN, FakeHub, Fault, serve
from tests.support.fake_hub.repo import Repo

__all__ = ["COMMIT", "READER", "TOKEN", "FakeHub", "Fault", "Repo", "serve"]
