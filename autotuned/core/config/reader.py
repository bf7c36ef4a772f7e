"""A configuration file as YAML sees it: the entries of its top-level mapping, each with its place in the text.

Reads only. A problem is named by its line and never quotes the file: it may hold secrets. Pure.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.scanner import Scanner

from autotuned.shared.knobs import TABLE

OWNED = ("model", *(knob.published for knob in TABLE))
"""The keys that are ours to write, in the order in which missing ones are added."""
SOURCE, PROVENANCE = "max_concurrency_source", "max_context_override_provenance"
"""What says who chose the slots, and who the context: written, or taken away, with the key that it is about."""
WRITTEN = (
    "model",
    "kv_bits",
    "max_concurrency_override",
    SOURCE,
    "max_context_override",
    PROVENANCE,
)

BOM = "\ufeff"
BREAK = re.compile(r"\r\n|\n|\r")
_COLON = re.compile(r"\s*:")
_DECIMAL = re.compile(r"0|-?[1-9][0-9]*")
_PREFIX = "tag:yaml.org,2002:"

Scalar = str | int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a file is left alone: a clause that follows its path."""

    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of the top-level mapping. Offsets count characters, numbers count events."""

    key: str | None
    """None for a key that is no text."""
    start: int
    colon: int
    """The offset behind the colon."""
    end: int
    """The offset behind the value's last character; comments and blank lines behind it are not its own."""
    first: int
    value: int
    last: int
    """The numbers of the key's first event, of the value's first one, and of the one behind its last."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A text that is one YAML mapping in block style, or holds nothing yet."""

    text: str
    events: Sequence[Event]
    targets: dict[int, int]
    """For each alias the number of the event that it refers to."""
    entries: tuple[Entry, ...]
    root: int
    """The number of the mapping's first event; -1 where there is no document."""
    end: int
    """Where the document ends: at its `...`, else at the end of the text."""
    tag_of: Callable[[ScalarEvent], str]

    def named(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)

    def scalar(self, number: int) -> Scalar | Refused:
        """An event as a value, an alias followed; Refused for what is no text, whole number or null."""
        event = self.events[self.targets.get(number, number)]
        if not isinstance(event, ScalarEvent):
            return Refused("is no single value")
        tag = self.tag_of(event).removeprefix(_PREFIX)
        if tag == "null":
            return None
        if tag == "int" and _DECIMAL.fullmatch(event.value):
            return int(event.value)
        return str(event.value) if tag == "str" else Refused("is neither text nor a whole number")

    def has(self, key: str, value: Scalar) -> bool:
        """The key has this value already; None: there is no such key."""
        entry = self.named(key)
        if entry is None or value is None:
            return entry is None and value is None
        found = self.scalar(entry.value)
        return type(found) is type(value) and found == value

    def shown(self, key: str) -> Scalar:
        """The value of a key, None for none, in words where it is no single one."""
        entry = self.named(key)
        found = None if entry is None else self.scalar(entry.value)
        return found if not isinstance(found, Refused) else f"({found.reason})"

    def block(self, entry: Entry) -> tuple[int, int]:
        return line_start(self.text, entry.start), line_end(self.text, entry.end, past_break=True)

    def line_of(self, offset: int) -> int:
        """The number of a line, from 1."""
        return len(BREAK.findall(self.text[:offset])) + 1


def line_start(text: str, offset: int) -> int:
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def line_end(text: str, offset: int, *, past_break: bool = False) -> int:
    found = BREAK.search(text, offset)
    if found is None:
        return len(text)
    return found.end() if past_break else found.start()


def read(text: str) -> ConfigFile | Refused:
    """What stands in `text`, which has no byte order mark."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        events = list(yaml.parse(text))
    except YAMLError as error:
        return Refused(_invalid(error))
    starts = [n for n, event in enumerate(events) if isinstance(event, DocumentStartEvent)]
    if len(starts) > 1:
        return Refused(f"holds {len(starts)} YAML documents, so it is not clear which one counts")
    targets = _targets(events)
    if targets is None:
        return Refused("is not valid YAML: it refers to an anchor that it does not define")

    def tag_of(event: ScalarEvent) -> str:
        explicit = event.tag
        return str(explicit or yaml.resolver.resolve(ScalarNode, event.value, event.implicit))

    ends = [e for e in events if isinstance(e, DocumentEndEvent) and e.explicit]
    end = ends[0].start_mark.index if ends else len(text)
    at = starts[0] + 1 if starts else -1
    nothing = ConfigFile(text, events, targets, (), at, end, tag_of)
    root = events[at] if starts else None
    if root is None or (isinstance(root, ScalarEvent) and not root.value and root.implicit[0]):
        return nothing
    if not isinstance(root, MappingStartEvent):
        return Refused("is no YAML mapping of keys to values")
    if root.flow_style:
        return Refused("is written in flow style, {...}: write one `key: value` a line instead")
    entries = _entries(nothing, at + 1)
    if isinstance(entries, Refused):
        return entries
    return dataclasses.replace(nothing, entries=entries)


def rest(file: ConfigFile, but: Collection[str]) -> list[object] | None:
    """What a file says, the keys of `but` left out, for comparison; None where it refers to one of their values."""
    root = file.events[file.root] if file.root >= 0 else None
    said: list[object] = [(getattr(root, "anchor", None), getattr(root, "tag", None))]
    places = {file.root: 0}
    for entry in file.entries:
        if entry.key in but:
            continue
        for number in range(entry.first, entry.last):
            event = file.events[number]
            places[number] = len(said)
            if not isinstance(event, AliasEvent):
                names = ("anchor", "tag", "implicit", "value", "style", "flow_style")
                said.append((type(event), *(getattr(event, name, None) for name in names)))
            elif file.targets[number] in places:
                said.append(places[file.targets[number]])
            else:
                return None
    return said


def _entries(file: ConfigFile, number: int) -> tuple[Entry, ...] | Refused:
    entries: list[Entry] = []
    starts: dict[str | None, int] = {}
    while not isinstance(file.events[number], MappingEndEvent):
        first, value = number, _behind(file.events, number)
        number = _behind(file.events, value)
        key = file.scalar(first)
        name = key if isinstance(key, str) else None
        start = file.events[first].start_mark.index
        colon = _COLON.match(file.text, _last_offset(file, first, value))
        behind = colon.end() if colon else start
        end = max(behind, _last_offset(file, value, number))
        entry = Entry(name, start, behind, end, first, value, number)
        if name in WRITTEN and name in starts:
            lines = f"{file.line_of(starts[name])} and {file.line_of(start)}"
            return Refused(f"has the key `{name}` twice, in lines {lines}")
        if name in WRITTEN and colon is None:
            return Refused(f"has the key `{name}` without a value that could be found")
        starts[name] = start
        entries.append(entry)
    return tuple(entries)


def _behind(events: Sequence[Event], number: int) -> int:
    depth = 0
    while True:
        event = events[number]
        depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
        depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)
        number += 1
        if depth == 0:
            return number


def _last_offset(file: ConfigFile, first: int, behind: int) -> int:
    """Where the last event that has text of its own ends, blank lines left out."""
    last = 0
    for event in file.events[first:behind]:
        start, end = event.start_mark.index, event.end_mark.index
        if end > start:
            last = max(last, start + len(file.text[start:end].rstrip()))
    return last


def _targets(events: Sequence[Event]) -> dict[int, int] | None:
    anchors: dict[str, int] = {}
    targets: dict[int, int] = {}
    for number, event in enumerate(events):
        name = getattr(event, "anchor", None)
        if isinstance(event, AliasEvent):
            if name not in anchors:
                return None
            targets[number] = anchors[name]
        elif name is not None:
            anchors[name] = number
    return targets


def _invalid(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return "is not valid YAML: it holds a character that YAML does not allow"
    return f"is not valid YAML: line {mark.line + 1}, column {mark.column + 1} cannot be understood"


class _Scanner(Scanner):
    """Takes tabs between tokens, as the provider's own reader does; ruamel alone refuses them."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.reader.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.reader.forward()
            super().scan_to_next_token()
