"""What a request can name: the shipped servers and lists of models, and the operator's own.

The shipped ones are read from the TOML files in `providers/`, the operator's come from the settings.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotuned.errors import nearest
from autotuned.server_spec import Part, ServerSpec


class Entry(Part):
    """A model of a default list: parameters in billions, None where only its name says; weights on disk about (bytes)."""

    model: str
    size_b: float | None = None
    weights_bytes: int = 0


FOLDER = Path(__file__).with_name("providers")
CATALOGUE = "catalogue"
FIRST = ("macprovider", "llama-server", "mlx-lm")
"""Tried before all others where the request leaves the server open, in this order."""


@dataclass(frozen=True, slots=True)
class Descriptions:
    """Servers and lists of models by name; `SHIPPED` are those without any of the operator's own."""

    servers: Mapping[str, ServerSpec] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all(self) -> dict[str, ServerSpec]:
        """Every server by name, in the order of `auto`; an operator's one replaces a shipped one."""
        order = dict.fromkeys((*FIRST, *self.servers, *shipped()))
        return {name: self.servers.get(name) or shipped()[name] for name in order}

    def server_rule(self, name: str, *choices: str) -> str | None:
        """Why `name` is neither a server nor one of the other `choices`; None where it is."""
        *names, last = map(repr, known := (*choices, *self.all()))
        rule = f"should be {', '.join(names)} or {last}"
        return None if name in known else rule + nearest(name, known)

    def lists(self) -> list[str]:
        return list(dict.fromkeys((*catalogue(), *self.candidates)))

    def list_rule(self, name: str) -> str | None:
        """Why there is no list of this name; None where there is."""
        known = self.lists()
        rule = f"is none of {', '.join(known)}"
        return None if name in known else rule + nearest(name, known)

    def entries(self, name: str | None) -> tuple[Entry, ...]:
        """The models of a list; none for None."""
        if name is None:
            return ()
        if name in self.candidates:
            return tuple(Entry(model=model) for model in self.candidates[name])
        return catalogue()[name]


@functools.cache
def shipped() -> Mapping[str, ServerSpec]:
    """The servers that come with the program, by name."""
    return {
        path.stem: ServerSpec.model_validate(_toml(path))
        for path in sorted(FOLDER.glob("*.toml"))
        if path.stem != CATALOGUE
    }


@functools.cache
def catalogue() -> Mapping[str, tuple[Entry, ...]]:
    """The lists of models that come with the program by name, each with its largest model first."""
    lists = _toml(FOLDER / f"{CATALOGUE}.toml")
    return {name: tuple(map(Entry.model_validate, models)) for name, models in lists.items()}


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


SHIPPED = Descriptions()
"""Without any of the operator's own."""
