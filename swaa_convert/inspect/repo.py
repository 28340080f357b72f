"""A converted repo, read from config.json, its recipe and its manifest; its code is never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.inspect.figures import Rule, kv_bytes_per_key
from swaa_convert.manifest import Manifest, read_manifest
from swaa_convert.recipe_file import RECIPE_FILE, parse_recipe
from swaa_convert.resources import shipped_module
from swaa_convert.source import Source, open_source


@dataclass(frozen=True)
class ConvertedRepo:
    """What is known of a converted repo.

    Parameters
    ----------
    name:
        The Hub id, or the folder's name.
    revision:
        The commit on the Hub, where there is one.
    config:
        The whole of config.json.
    rule:
        What its `swaa_config` asks for.
    recipe:
        The recipe that it was made with; empty if swaa_recipe.yaml is missing.
    notes:
        What swaa_recipe.yaml says of the source and of the tool that made it.
    manifest:
        What the conversion wrote, if it left a manifest.
    """

    name: str
    revision: str | None
    config: Mapping[str, Any]
    rule: Rule
    recipe: Mapping[str, Any]
    notes: Mapping[str, Any]
    manifest: Manifest | None = None

    @property
    def source(self) -> str | None:
        """The source's Hub id, or its folder's name."""
        return self._note("source", "id") or self._note("source", "name")

    @property
    def source_revision(self) -> str | None:
        """The source's commit on the Hub."""
        return self._note("source", "revision")

    @property
    def code_version(self) -> str | None:
        """The version of swaa-convert that put its code into the repo."""
        return self._note("tool", "version") if self.manifest is None else self.manifest.code

    def _note(self, part: str, key: str) -> str | None:
        values = self.notes.get(part)
        value = values.get(key) if isinstance(values, dict) else None
        return None if value is None else str(value)


def read_repo(where: str, revision: str | None) -> ConvertedRepo:
    """The converted repo in a local folder or on the Hub."""
    return repo_of(open_source(where, revision, quiet=True), where)


def repo_of(source: Source, where: str) -> ConvertedRepo:
    """The converted repo that `source` is, which the user calls `where`; anything else is refused."""
    if "config.json" not in source.files:
        raise SwaaError(f"{source.name} has no config.json, so it is no converted repo")
    config = source.read_json("config.json")
    if "swaa_config" not in config:
        raise SwaaError(
            f"{source.name} is not a converted repo (config.json has no swaa_config): convert it with "
            f"`swaa-convert {where} --out DIR`"
        )
    rule = _rule(source.name, config)
    recipe, notes = _recipe(source)
    return ConvertedRepo(source.name, source.revision, config, rule, recipe, notes, read_manifest(source))


def _rule(name: str, config: Mapping[str, Any]) -> Rule:
    """The rule in config.json, checked as the model itself checks it."""
    depth = config.get("num_hidden_layers")
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise SwaaError(f"{name}: config.json has num_hidden_layers {depth!r}, not a number of layers")
    try:
        shipped_module("swaa_settings").SwaaSettings.parse(config["swaa_config"], depth)
        kv_bytes_per_key(config)
    except KeyError as error:
        raise SwaaError(f"{name}: config.json has no {error.args[0]}") from None
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise SwaaError(f"{name}: config.json: {error}") from None
    return Rule.from_config(config["swaa_config"], depth)


def _recipe(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    if RECIPE_FILE not in source.files:
        return {}, {}
    return parse_recipe(source.read(RECIPE_FILE), f"{source.name}: {RECIPE_FILE}")
