"""The surgical edit of the provider's configuration: text and owned keys in, text out.

Only the owned keys' own lines change: what YAML says tells where they are, and what comes out is
read again and must say the same with the owned keys replaced, or nothing comes out at all. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import MappingStartEvent, ScalarEvent, SequenceStartEvent

from autotuned.core.config.reader import (
    BOM,
    BREAK,
    ConfigFile,
    Entry,
    Refused,
    Scalar,
    line_end,
    line_start,
    read,
    rest,
)

MERGE = "<<"

_PROPERTIES = re.compile(r"(?:[&!]\S*[ \t]*)*(?<![ \t])")
_BLOCK_HEADER = re.compile(r"(?:[&!]\S*[ \t]+)*[|>][-+0-9]*")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
"""What one version of YAML or another reads as something else than text."""

Change = tuple[int, int, str]
"""From offset, to offset, what stands there instead."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The new text, and each owned key that changed: its value `before` and `after`, None for none."""

    text: str
    changed: Mapping[str, Mapping[str, Scalar]]


def edit(text: str, wanted: Mapping[str, Scalar]) -> Edited | Refused:
    """`text` with every key of `wanted` as that has it; None removes the key's lines, what is not in it stays."""
    mark = BOM if text.startswith(BOM) else ""
    before = read(text.removeprefix(BOM))
    if isinstance(before, Refused):
        return before
    changed = {
        key: {"before": before.shown(key), "after": value}
        for key, value in wanted.items()
        if not before.has(key, value)
    }
    if not changed:
        return _merged(before, wanted) or Edited(text, changed)
    if rest(before, changed) is None:
        return Refused("has keys that refer to a value of ours by its anchor: write it out there")
    for place in _places(before):
        after = read(_written(before, {key: wanted[key] for key in changed}, place))
        if not isinstance(after, Refused) and _says(before, after, wanted, changed):
            return _merged(after, wanted) or Edited(mark + after.text, changed)
    return Refused(
        f"has {' or '.join(changed)} written in a way that cannot be changed without touching other lines"
    )


def _places(file: ConfigFile) -> list[int]:
    """Where missing keys may go: the end; before the last entry where a longer file would change its value."""
    last = file.entries[-1:]
    return [file.end, *(line_start(file.text, entry.start) for entry in last)]


def _written(file: ConfigFile, wanted: Mapping[str, Scalar], place: int) -> str:
    changes: list[Change] = []
    missing = []
    for key, value in wanted.items():
        entry = file.named(key)
        if entry is None:
            missing.append(f"{_indent(file)}{key}: {_formatted(value, None)}")
        elif value is None:
            changes.append((*file.block(entry), ""))
        else:
            changes += _replacement(file, entry, value)
    head = _with([change for change in changes if change[0] < place], file.text, 0, place)
    tail = _with([change for change in changes if change[0] >= place], file.text, place, None)
    if not missing:
        return head + tail
    found = BREAK.search(file.text)
    newline = found[0] if found else "\n"
    if head and not head.endswith(("\n", "\r")):
        head += newline
    whole = bool(tail) or not file.text or file.text.endswith(("\n", "\r"))
    return head + newline.join(missing) + (newline if whole else "") + tail


def _replacement(file: ConfigFile, entry: Entry, value: Scalar) -> list[Change]:
    """The changes that give an entry a new value: on one line, what stands behind it kept."""
    event, text = file.events[entry.value], file.text
    start, end = event.start_mark.index, event.end_mark.index
    style = event.style if isinstance(event, ScalarEvent) else None
    new = _formatted(value, style)
    rest_of_it = (line_end(text, entry.colon), line_end(text, entry.end), "")
    if style in ("|", ">"):
        header = _BLOCK_HEADER.match(text, start)
        cut = (line_end(text, start), line_end(text, entry.end), "")
        return [(start, header.end() if header else start, new), cut]
    if isinstance(event, MappingStartEvent | SequenceStartEvent) and not event.flow_style:
        if line_start(text, start) != line_start(text, entry.colon):
            return [(entry.colon, entry.colon, f" {new}"), rest_of_it]
        properties = _PROPERTIES.match(text, start)
        return [(start, properties.end() if properties else start, new), rest_of_it]
    if start == end:
        return [(entry.colon, entry.colon, f" {new}")]
    return [(start, entry.end, new)]


def _with(changes: list[Change], text: str, start: int, end: int | None) -> str:
    """The part of `text` with the changes made, which are in it and do not overlap."""
    made = []
    for first, last, new in sorted(changes):
        made += [text[start:first], new]
        start = last
    return "".join([*made, text[start:end]])


def _indent(file: ConfigFile) -> str:
    if not file.entries:
        return ""
    start = file.entries[0].start
    before = file.text[line_start(file.text, start) : start]
    return before if before.isspace() else ""


def _formatted(value: Scalar, style: str | None) -> str:
    """A value as YAML: quoted as the old one was, or where it must be."""
    if isinstance(value, int):
        return str(value)
    text = value or ""
    if style == "'" and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    if style != '"' and _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return f"\\U{ord(letter):08x}"


def _says(
    before: ConfigFile, after: ConfigFile, wanted: Mapping[str, Scalar], changed: Collection[str]
) -> bool:
    """What was written says what `before` said, with the changed keys as wanted."""
    same = rest(after, changed) == rest(before, changed)
    return same and all(after.has(key, value) for key, value in wanted.items())


def _merged(file: ConfigFile, wanted: Mapping[str, Scalar]) -> Refused | None:
    """The refusal where a key that must be gone still comes in through a merge (`<<: *defaults`)."""
    keys = (file.events[entry.first] for entry in file.entries)
    if not any(isinstance(key, ScalarEvent) and key.value == MERGE for key in keys):
        return None
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True
    try:
        data = yaml.load(file.text)
    except YAMLError:
        return Refused(f"has a merge ({MERGE}) that cannot be followed: write its keys out")
    for key, value in wanted.items():
        if value is None and data.get(key) is not None:
            return Refused(f"gets {key} from a merge ({MERGE}): take it out there")
    return None
