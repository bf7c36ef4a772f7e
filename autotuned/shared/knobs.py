"""The knobs: one entry each, with its name in every vocabulary. Nothing else spells them out.

A knob is called by `name` in flags, axes and events, by `published` in documents and the provider's
configuration file, by `column` in the store, by `label` where a person has little room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Value = int | float | bool | str | None

UNSET = "unset"
"""How a knob that is left at the server's default is typed and shown; null in JSON, NULL in SQL, no flag."""


class Knob(NamedTuple):
    """One entry of the table. `choices`: what may be asked for; without them any whole number from 1."""

    name: str
    published: str
    column: str
    label: str
    choices: tuple[Any, ...] = ()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def optional(self) -> bool:
        """Whether it may be left at the server's default."""
        return None in self.choices

    @property
    def axis(self) -> str:
        """The request's field that lists its values."""
        return f"{self.name}_axis"

    def of(self, document: Mapping[str, Any]) -> Any:
        """Its value in a document of either vocabulary."""
        return document.get(self.published, document.get(self.name))


TABLE = (
    Knob("kv_bits", "kv_bits", "kv_bits", "kv_bits", (None, 4, 8)),
    Knob("max_batch", "max_concurrency_override", "max_batch", "batch"),
    Knob("max_context", "max_context_override", "max_context_cap", "context"),
)
"""The three that every server has, in the order of the cells."""


class Knobs(NamedTuple):
    """One combination of settings, in the order of the table. None: left at the server's default.

    `extra` are a server's own knobs beyond the three, in the order asked.
    """

    kv_bits: int | None
    max_batch: int
    max_context: int
    extra: tuple[tuple[str, Value], ...] = ()

    def named(self) -> dict[str, Any]:
        """By name, as flags and events have them."""
        return self._by([knob.name for knob in TABLE])

    def published(self) -> dict[str, Any]:
        """As documents and the provider's configuration file have them."""
        return self._by([knob.published for knob in TABLE])

    def columns(self) -> dict[str, Any]:
        """As the store has them; `extra` apart."""
        return dict(zip((knob.column for knob in TABLE), self, strict=False))

    def by_name(self) -> dict[str, Value]:
        """Every one by name, `extra` among them."""
        return dict(self._listed())

    def chosen(self) -> dict[str, int | float | bool | str]:
        """Those that are not left at the server's default, by name, `extra` among them."""
        return {name: value for name, value in self._listed() if value is not None}

    def _listed(self) -> list[tuple[str, Value]]:
        return [(knob.name, getattr(self, knob.name)) for knob in TABLE] + list(self.extra)

    def _by(self, names: list[str]) -> dict[str, Any]:
        mapped = dict(zip(names, self, strict=False))
        return {**mapped, "extra": dict(self.extra)} if self.extra else mapped

    def __str__(self) -> str:
        return ", ".join(f"{name} {shown(value)}" for name, value in self._listed())


def read(document: Mapping[str, Any]) -> Knobs:
    """The knobs of a document in either vocabulary."""
    values = {knob.name: value for knob, value in listed(document)}
    return Knobs(**values)._replace(extra=tuple(document.get("extra", {}).items()))


def shown(value: object) -> str:
    """A knob's value as a person types it."""
    if isinstance(value, bool):
        return str(value).lower()
    return UNSET if value is None else str(value)


def listed(document: Mapping[str, Any]) -> list[tuple[Knob, Any]]:
    """The three knobs of a document in either vocabulary, in order."""
    return [(knob, knob.of(document)) for knob in TABLE]


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every knob of a document by its name there, the server's own beside the three."""
    three = {name: value for name, value in document.items() if name != "extra"}
    return {**three, **own(document)}


def own(document: Mapping[str, Any]) -> dict[str, Value]:
    """A server's own knobs in a document of either vocabulary."""
    return dict(document.get("extra", {}))


def cells(document: Mapping[str, Any]) -> list[str]:
    """The knobs of a document as a row of a table shows them."""
    return [shown(value) for _, value in listed(document)] + [*map(shown, own(document).values())]


def flags(document: Mapping[str, Any]) -> str:
    """The knobs of a document as flags: `--kv-bits unset --max-batch 1 --axis threads=4`."""
    three = [f"{knob.flag} {shown(value)}" for knob, value in listed(document)]
    return " ".join(
        three + [f"--axis {name}={shown(value)}" for name, value in own(document).items()]
    )


def words(document: Mapping[str, Any]) -> str:
    """The knobs of a document in words: `kv_bits 8, batch 1, context 4000, threads 4`."""
    three = [f"{knob.label} {shown(value)}" for knob, value in listed(document)]
    return ", ".join(three + [f"{name} {shown(value)}" for name, value in own(document).items()])


def winner(document: Mapping[str, object]) -> Any:
    """Of the cells of a result the one that the figures of its recommendation are of.

    A calibration may have changed the knobs since: what was measured counts, then the knobs. None where
    no cell of the run is recommended.
    """
    answer: Any = document["recommendation"]
    cells: Any = document.get("stage2", ())
    if answer is None:
        return None
    fits = [cell for cell in cells if cell["fits"]]
    figures = ("tps_median", "ttft_p95_ms")
    measured = [cell for cell in fits if all(cell[name] == answer[name] for name in figures)]
    same = [cell for cell in measured or fits if cell["knobs"] == answer["knobs"]]
    return next(iter(same or measured), None)
