"""Who pushes, and whether they may: said before hours of work."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from swaa_convert.errors import SwaaError
from swaa_convert.publish.errors import patiently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TOKENS = "https://huggingface.co/settings/tokens"


def full_id(api: "HfApi", repo_id: str, *, create_pr: bool) -> str:
    """The repo's whole id; refused unless the token may write there, as far as the Hub says beforehand.

    Anyone may open a pull request, so `create_pr` asks for a token that can write and nothing more.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise SwaaError("offline mode is on (HF_HUB_OFFLINE): unset it to push")
    if get_token() is None:
        raise SwaaError("not logged in to the Hub: run `hf auth login`, or set HF_TOKEN")
    who: Mapping[str, Any] = patiently(api.whoami)
    name = str(who.get("name"))
    whole = repo_id if "/" in repo_id else f"{name}/{repo_id}"
    _check_token(who, whole, create_pr=create_pr)
    if not create_pr:
        _check_namespace(who, name, whole)
    return whole


def check_write(api: "HfApi", repo_id: str) -> None:
    """Whether an existing repo takes what this token pushes; clients before 1.16 cannot ask."""
    if "write" in inspect.signature(api.auth_check).parameters:
        patiently(lambda: api.auth_check(repo_id, write=True))


def _check_token(who: Mapping[str, Any], repo_id: str, *, create_pr: bool) -> None:
    token = (who.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    if role == "read":
        raise SwaaError(f"the Hub token of {who.get('name')} can only read: make one that can write at {_TOKENS}")
    if role == "fineGrained" and not create_pr:
        scopes = (token.get("fineGrained") or {}).get("scoped") or []
        places = {repo_id.casefold(), repo_id.split("/")[0].casefold()}
        if not any(_writes(scope, places) for scope in scopes):
            raise SwaaError(f"the Hub token has no write access to {repo_id}: give it that at {_TOKENS}")


def _writes(scope: Mapping[str, Any], places: set[str]) -> bool:
    """Whether a fine-grained token may write to one of the places, a namespace and a repo."""
    named = str((scope.get("entity") or {}).get("name")).casefold()
    return named in places and "repo.write" in (scope.get("permissions") or ())


def _check_namespace(who: Mapping[str, Any], name: str, repo_id: str) -> None:
    roles = {str(org.get("name")).casefold(): org.get("roleInOrg") for org in who.get("orgs") or ()}
    space = repo_id.split("/")[0]
    if space.casefold() == name.casefold():
        return
    if space.casefold() not in roles:
        raise SwaaError(
            f"{name} is no member of {space}: push to {name}/{repo_id.split('/')[1]}, or propose it with --create-pr"
        )
    if roles[space.casefold()] == "read":
        raise SwaaError(f"{name} may only read in {space}: ask its owner for write access")
