"""What others keep on llama.cpp's servers: the presets of its router, and llama-swap's config.yaml.

Of presets the recipe's keys in the section of one model are ours: a key is a flag without its dashes, in any spelling
of it; a flag without a value is `true`. Of llama-swap's the flags of the recipe inside one model's `cmd`, and its
concurrencyLimit where it has one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from autotuned.core.command_line import Setting, words
from autotuned.writers import MODEL, Edited, NotOurs, Recipe, fitted

LIMIT = "concurrencyLimit"
_SECTION = re.compile(r"^[ \t]*\[(?P<name>[^\]\r\n]+)\][ \t]*(?:[;#].*)?$")
_ENTRY = re.compile(r"^(?P<head>[ \t]*(?P<key>[\w-]+)[ \t]*=[ \t]*)(?P<value>.*?)(?P<tail>[ \t]*)$")


def edit_presets(text: str, recipe: Recipe, name: str) -> Edited:
    """The presets with the recipe in `[name]`. Raises NotOurs."""
    lines = text.splitlines(keepends=True)
    first, after = _span(lines, name)
    changed: dict[str, dict[str, str | None]] = {}
    remarks: list[str] = []
    for knob, setting in recipe.settings.items():
        if knob == MODEL:
            continue  # the section is the model's
        standing = _standing(lines[first:after], setting)
        before, now = _shown(standing), _shown(_pairs(setting.words))
        if _meaning(standing, setting) == _meaning(_pairs(setting.words), setting):
            continue
        if before and knob not in recipe.decided and not recipe.all_knobs:
            remarks.append(f"kept: {before} (this run did not search it); --all-knobs writes it")
            continue
        lines[first:after] = _put(lines[first:after], setting, _ending(text))
        after = _span(lines, name)[1]
        changed[knob] = {"before": before, "after": now}
    return Edited("".join(lines), changed, tuple(remarks))


def _span(lines: Sequence[str], name: str) -> tuple[int, int]:
    """The lines of a section, its header left out."""
    heads = [
        (place, match["name"].strip())
        for place, line in enumerate(lines)
        if (match := _SECTION.match(line.rstrip("\r\n")))
    ]
    there = [place for place, found in heads if found == name]
    if len(there) != 1:
        names = ", ".join(found for _, found in heads if found != "*") or "none"
        many = "more than one section" if there else "no section"
        message = f"it has {many} [{name}] (it has {names}): name one as [apply] model"
        raise NotOurs(message)
    end = next((place for place, _ in heads if place > there[0]), len(lines))
    return there[0] + 1, end


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """The words of a setting as keys and values."""
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            pairs.append((word.lstrip("-"), "true"))
        elif pairs:
            pairs[-1] = (pairs[-1][0], word)
    return pairs


def _names(setting: Setting) -> set[str]:
    return {flag.lstrip("-") for flag in setting.flags}


def _standing(lines: Sequence[str], setting: Setting) -> list[tuple[str, str]]:
    keys = _names(setting)
    entries = [match for line in lines if (match := _ENTRY.match(line.rstrip("\r\n")))]
    return [(match["key"], match["value"]) for match in entries if match["key"] in keys]


def _meaning(pairs: Sequence[tuple[str, str]], setting: Setting) -> list[str]:
    """Values in an order that does not depend on spelling; a flag without a value counts by its name."""
    plain = {flag.lstrip("-") for flag, count in setting.flags.items() if count == 0}
    return sorted("true" if key in plain else value for key, value in pairs)


def _shown(pairs: Sequence[tuple[str, str]]) -> str | None:
    return "; ".join(f"{key} = {value}" for key, value in pairs) or None


def _ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _put(lines: Sequence[str], setting: Setting, ending: str) -> list[str]:
    """A section with this setting: values changed where they stand, the rest added behind the last entry."""
    keys, wanted, kept = _names(setting), _pairs(setting.words), list[str]()
    for line in lines:
        match = _ENTRY.match(line.rstrip("\r\n"))
        if match is None or match["key"] not in keys:
            kept.append(line)
            continue
        same = next((pair for pair in wanted if pair[0] == match["key"]), None)
        if same is not None:
            wanted.remove(same)
            tail = line[len(line.rstrip("\r\n")) :]
            kept.append(f"{match['head']}{same[1]}{match['tail']}{tail}")
    entries = [i for i, line in enumerate(kept) if _ENTRY.match(line.rstrip("\r\n"))]
    place = entries[-1] + 1 if entries else 0
    if wanted and place and not kept[place - 1].endswith("\n"):
        kept[place - 1] += ending
    kept[place:place] = [f"{key} = {value}{ending}" for key, value in wanted]
    return kept


def edit_swap(text: str, recipe: Recipe, name: str) -> Edited:
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
