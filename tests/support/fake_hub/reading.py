"""What the fake Hub answers to GET and HEAD."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.support.fake_hub import cas
from tests.support.fake_hub.repo import Repo, blob_id, info, listing, sha256

if TYPE_CHECKING:
    from tests.support.fake_hub.handler import Handler

# Entries of a tree in one answer, so that the client must ask for the next page.
PAGE = 10


def answer(ask: "Handler") -> None:
    path = unquote(ask.path.split("?")[0])
    for start, (status, headers) in ask.hub.answers.items():
        if path.startswith(start):
            return ask.send(status, b"{}", headers)
    if path == "/api/whoami-v2":
        return ask.reply(ask.account) if ask.account else ask.refuse(401, message="Invalid username or password.")
    if path.startswith(f"/{cas.PREFIX}/"):
        # No chunk is known already.
        return ask.refuse(404)
    if path.startswith("/cdn/"):
        return ask.send(200, ask.hub.objects[path.split("/")[2]], {"Accept-Ranges": "bytes"})
    match = re.match(r"/api/models/([^/]+/[^/]+)(?:/|$)|/([^/]+/[^/]+)/resolve/", path)
    repo = ask.hub.repo(match[1] or match[2]) if match else None
    if match is None or repo is None or (repo.private and ask.account is None):
        return ask.refuse(401, "RepoNotFound")
    if match[2]:
        return _file(ask, match[2], repo)
    _api(ask, match[1], repo, [unquote(part) for part in ask.parts[4:]])


def _api(ask: "Handler", name: str, repo: Repo, rest: list[str]) -> None:
    if rest[:1] == ["refs"]:
        return ask.reply({**_refs(repo), "converts": []})
    if rest[:1] == ["auth-check"]:
        return ask.reply({})
    if rest[:1] == ["xet-write-token"]:
        return cas.token(ask) if ask.hub.xet else ask.refuse(404)
    commit = repo.resolve(rest[1] if len(rest) > 1 else "main")
    if commit is None:
        return ask.refuse(404, "RevisionNotFound")
    if rest[:1] == ["tree"]:
        return _tree(ask, repo, commit)
    ask.reply(info(name, repo, commit))


def _refs(repo: Repo) -> dict[str, list[dict[str, str]]]:
    branches = [
        {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.refs.items() if "/pr/" not in n
    ]
    return {
        "branches": branches,
        "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()],
    }


def _tree(ask: "Handler", repo: Repo, commit: str) -> None:
    entries, start = listing(repo, commit), int(ask.query.get("cursor", 0))
    path = ask.path.split("?")[0]
    following = f'<{ask.hub.url}{path}?recursive=true&cursor={start + PAGE}>; rel="next"'
    ask.reply(entries[start : start + PAGE], headers={"Link": following} if start + PAGE < len(entries) else {})


def _file(ask: "Handler", name: str, repo: Repo) -> None:
    revision, path = ask.path.split("?")[0].split("/resolve/", 1)[1].split("/", 1)
    commit, path = repo.resolve(unquote(revision)), unquote(path)
    if commit is None:
        return ask.refuse(404, "RevisionNotFound")
    data = repo.tree(commit).get(path)
    if data is None:
        return ask.refuse(404, "EntryNotFound")
    if ask.command == "GET" and path.endswith(ask.hub.breaks):
        return ask.break_off(data)
    headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if not repo.is_large(path):
        return ask.send(200, data, {**headers, "ETag": f'"{blob_id(data)}"'})
    ask.hub.objects.setdefault(sha256(data), data)
    linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
    # Another host to the client, which must not be told the token.
    location = f"{ask.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{sha256(data)}"
    ask.send(302, b"", {**headers, **linked, "Location": location})
