"""llama-swap's config.yaml: the flags of the recipe inside one model's `cmd`, its concurrencyLimit where it has one."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from autotuned.core.command_line import words
from autotuned.writers import Edited, NotOurs, Recipe, fitted

LIMIT = "concurrencyLimit"


def edit(text: str, recipe: Recipe, name: str) -> Edited:
    """The configuration with the recipe in `models.NAME`. Raises NotOurs."""
    tree = _composed(text)
    models = _entry(tree, "models")
    model = _entry(models, name)
    if not isinstance(model, MappingNode):
        there = ", ".join(_keys(models)) or "none"
        message = f"it has no model {name} (it has {there}): name one as [apply] model"
        raise NotOurs(message)
    cmd = _entry(model, "cmd")
    if not isinstance(cmd, ScalarNode) or cmd.anchor is not None:
        message = f"models.{name}.cmd is no text of its own"
        raise NotOurs(message)
    start, end = cmd.start_mark.index, cmd.end_mark.index
    if cmd.style in ("'", '"'):  # the quotes are YAML's
        start, end = start + 1, end - 1
    edited = fitted(text[start:end], recipe)
    changed, after = dict(edited.changed), text[:start] + edited.text + text[end:]
    limit = _entry(model, LIMIT)
    if isinstance(limit, ScalarNode) and recipe.slots and limit.value != str(recipe.slots):
        begin, stop = limit.start_mark.index, limit.end_mark.index
        moved = len(edited.text) - (end - start) if begin > start else 0
        after = after[: begin + moved] + str(recipe.slots) + after[stop + moved :]
        changed[LIMIT] = {"before": f"{LIMIT}: {limit.value}", "after": f"{LIMIT}: {recipe.slots}"}
    _must_be_the_same_beside(text, after, name, recipe)
    return Edited(after, changed, edited.remarks)


def _must_be_the_same_beside(before: str, after: str, name: str, recipe: Recipe) -> None:
    """All but what is ours is as it was, and the command holds what was put into it."""
    old, new = _loaded(before), _loaded(after)
    was, now = old["models"][name].pop("cmd"), new["models"][name].pop("cmd")
    for document in (old, new):
        document["models"][name].pop(LIMIT, None)
    wanted = [word.value for word in words(fitted(str(was), recipe).text)]
    if old != new or [word.value for word in words(str(now))] != wanted:
        message = f"the flags cannot be put into models.{name}.cmd as it is written"
        raise NotOurs(message)


def _composed(text: str) -> Node | None:
    try:
        return YAML(typ="rt").compose(io.StringIO(text))  # type: ignore[no-any-return]
    except YAMLError as error:
        message = f"it is no YAML: {' '.join(str(error).split())[:200]}"
        raise NotOurs(message) from None


def _loaded(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        message = f"it cannot be read as YAML: {' '.join(str(error).split())[:200]}"
        raise NotOurs(message) from None


def _entry(node: Node | None, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _keys(node: Node | None) -> list[str]:
    return [name.value for name, _ in node.value] if isinstance(node, MappingNode) else []
