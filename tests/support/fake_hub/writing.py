"""What the fake Hub answers to POST and PUT: repos, uploads, commits, branches, tags."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.support.fake_hub import cas
from tests.support.fake_hub.repo import Repo, blob_id, sha256

if TYPE_CHECKING:
    from tests.support.fake_hub.handler import Handler


def answer(ask: "Handler") -> None:
    if ask.parts[0] == "storage":
        return _store(ask, *ask.parts[1:])
    if ask.parts[0] == cas.PREFIX:
        return cas.answer(ask)
    who = ask.account
    if who is None:
        return ask.refuse(401, message="Invalid credentials in Authorization header")
    if ask.parts == ["api", "repos", "create"]:
        return _create(ask, who)
    if ask.parts == ["api", "validate-yaml"]:
        return _validate(ask)
    git = re.fullmatch(r"([^/]+/[^/]+)\.git/info/lfs/objects/batch", "/".join(ask.parts))
    name = git[1] if git else "/".join(ask.parts[2:4])
    repo = ask.hub.repo(name)
    if repo is None:
        return ask.refuse(404, "RepoNotFound")
    if git:
        return _batch(ask)
    action, what = ask.parts[4], unquote("/".join(ask.parts[5:]))
    # Who opened a pull request may add to it.
    if not _may_write(who, name) and "create_pr" not in ask.query and not what.startswith("refs/pr/"):
        return ask.refuse(403, message="You don't have the rights to write")
    {"preupload": _preupload, "commit": _commit, "branch": _branch, "tag": _tag}[action](ask, name, repo, what)


def _may_write(who: dict[str, Any], name: str) -> bool:
    places = [who["name"], *(org["name"] for org in who["orgs"])]
    return who["auth"]["accessToken"]["role"] != "read" and name.split("/")[0] in places


def _create(ask: "Handler", who: dict[str, Any]) -> None:
    asked = ask.json()
    name = f"{asked['organization'] or who['name']}/{asked['name']}"
    if not _may_write(who, name):
        return ask.refuse(403, message="You don't have the rights to create a model there")
    if name in ask.hub.models:
        return ask.refuse(409, message="You already created this model repo")
    private = asked.get("private") or asked.get("visibility") == "private"
    ask.hub.models[name] = Repo.new(private=bool(private))
    ask.reply({"url": f"{ask.hub.url}/{name}", "id": "1"})


def _validate(ask: "Handler") -> None:
    wrong = "license: no-such-licence" in ask.json()["content"]
    errors = [{"message": '"license" must be one of [apache-2.0, …]'}] if wrong else []
    ask.reply({"errors": errors, "warnings": []}, 400 if wrong else 200)


def _preupload(ask: "Handler", name: str, repo: Repo, revision: str) -> None:
    commit = repo.resolve(revision)
    if commit is None:
        return ask.refuse(404, "RevisionNotFound")
    files = []
    for path in (file["path"] for file in ask.json()["files"]):
        there, large = repo.tree(commit).get(path), repo.is_large(path)
        oid = None if there is None else sha256(there) if large else blob_id(there)
        files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
    ask.reply({"files": files})


def _batch(ask: "Handler") -> None:
    asked = ask.json()
    if ask.hub.xet and "xet" in asked["transfers"]:
        return ask.reply({"transfer": "xet", "objects": [{**one, "actions": {}} for one in asked["objects"]]})
    objects = [_upload(ask, one["oid"], one["size"]) for one in asked["objects"]]
    ask.reply({"transfer": "basic" if ask.hub.part_size is None else "multipart", "objects": objects})


def _upload(ask: "Handler", oid: str, size: int) -> dict[str, Any]:
    if oid in ask.hub.objects:
        return {"oid": oid, "size": size}
    storage, part = f"{ask.hub.url}/storage", ask.hub.part_size
    upload: dict[str, Any] = {"href": f"{storage}/whole/{oid}"}
    if part is not None:
        numbers = range(1, -(-size // part) + 1)
        header = {f"{n:05d}": f"{storage}/part/{oid}/{n}" for n in numbers} | {"chunk_size": str(part)}
        upload = {"href": f"{storage}/complete/{oid}", "header": header}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{storage}/verify/{oid}"}}}


def _store(ask: "Handler", action: str, oid: str, number: str = "0") -> None:
    if action == "part":
        ask.hub.parts.setdefault(oid, {})[int(number)] = ask.body
        return ask.send(200, b"", {"ETag": f'"{number}"'})
    if action != "verify":
        parts = ask.hub.parts.get(oid, {})
        data = ask.body if action == "whole" else b"".join(parts[n] for n in sorted(parts))
        if sha256(data) != oid:
            return ask.refuse(400, message="The content is not what its name says")
        ask.hub.objects[oid] = data
    ask.reply({}) if oid in ask.hub.objects else ask.refuse(404)


def _commit(ask: "Handler", name: str, repo: Repo, ref: str) -> None:
    lines = [json.loads(line) for line in ask.body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repo.refs[ref]):
        return ask.refuse(412, message="A commit has happened since. Please refresh and try again.")
    tree = dict(repo.commits[repo.refs[ref]])
    for line in lines[1:]:
        _apply(ask, tree, line["key"], line["value"])
    proposed = "create_pr" in ask.query
    number = 1 + sum(other.startswith("refs/pr/") for other in repo.refs)
    commit = repo.commit(f"refs/pr/{number}" if proposed else ref, tree, header["summary"])
    pull = {"pullRequestUrl": f"{ask.hub.url}/{name}/discussions/{number}"} if proposed else {}
    ask.reply({"success": True, "commitOid": commit, "commitUrl": f"{ask.hub.url}/{name}/commit/{commit}", **pull})


def _apply(ask: "Handler", tree: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
    if key == "file":
        tree[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        tree[value["path"]] = ask.hub.objects[value["oid"]]
    else:
        assert key == "deletedFile", key
        del tree[value["path"]]


def _branch(ask: "Handler", name: str, repo: Repo, branch: str) -> None:
    if branch in repo.refs:
        return ask.refuse(409, message="Reference already exists")
    repo.refs[branch] = repo.resolve(ask.json().get("startingPoint", "main")) or ""
    ask.reply({})


def _tag(ask: "Handler", name: str, repo: Repo, revision: str) -> None:
    tag = ask.json()["tag"]
    if tag in repo.tags:
        return ask.refuse(409, message="Tag reference exists already")
    repo.tags[tag] = repo.resolve(revision) or ""
    ask.reply({})
