"""The cells of a request: the three knobs of every server, and whichever of the server's own were asked for.

A server's description says which knobs it has, and under which others each of them does anything. Pure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autotuned.errors import ConfigError, unknown
from autotuned.server_spec import ServerSpec, spelled
from autotuned.shared.knobs import TABLE, UNSET, Knobs, Value, shown

FIELD = "axes"
MOST_CELLS = 5000
"""A space of more is a slip of the keyboard; all that may be measured must pass through the socket."""

Axes = Mapping[str, Sequence[Value]]


class Space(NamedTuple):
    """The cells that may be measured, and how many were left out since a knob of theirs would do nothing."""

    cells: tuple[Knobs, ...]
    left_out: int = 0


def spanned(base: Sequence[Knobs], axes: Axes, server: ServerSpec | None) -> Space:
    """The product of `base` and the axes, in their order. Raises ConfigError for an axis that cannot be."""
    if not axes:
        return Space(tuple(base))
    spec = ServerSpec(command=("server",)) if server is None else server
    checked = {name: _axis(name, axis, spec) for name, axis in axes.items()}
    number = len(base) * math.prod(map(len, checked.values()))
    if number > MOST_CELLS:
        rule = f"span {number} cells, more than {MOST_CELLS}: leave out some values"
        raise ConfigError(FIELD, list(axes), rule)
    cells = tuple(
        cell._replace(extra=tuple(zip(checked, values, strict=True)))
        for cell in base
        for values in itertools.product(*checked.values())
    )
    able = tuple(cell for cell in cells if not _missing(cell, spec))
    if not able:
        rule = f"leave no cell: {_missing(cells[0], spec)}"
        raise ConfigError(FIELD, list(axes), rule)
    return Space(able, len(cells) - len(able))


def with_defaults_first(cells: Sequence[Knobs]) -> tuple[Knobs, ...]:
    """The same with the server's defaults as the first cell: one more where the axes do not hold them."""
    first = cells[0]
    defaults = first._replace(extra=tuple((name, None) for name, _ in first.extra))
    return (defaults, *(cell for cell in cells if cell != defaults))


def _axis(name: str, values: Sequence[Value], spec: ServerSpec) -> tuple[Value, ...]:
    """The values of one axis, the knob's own where none are given."""
    field = f"{FIELD}.{name}"
    own = [knob.name for knob in TABLE]
    if name in own:
        flag = f"--{name.replace('_', '-')}-axis"
        raise ConfigError(field, list(values), f"is an axis of every server: {flag}")
    known = [each for each in spec.knobs if each not in own]
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "it has none of its own"
        problem = unknown(name, list(values), f"is no knob of this server; {there}", known)
        raise ConfigError(field, problem.value, problem.rule)
    knob = spec.knobs[name]
    axis = tuple(values) or knob.default_axis
    if not axis:
        raise ConfigError(
            field, [], f"needs values, as in --axis {name}=V1,V2: it has no usual ones"
        )
    for value in axis:
        rule = None if value is None else knob.rule(value)
        if rule is not None:
            raise ConfigError(field, value, rule)
        if axis.count(value) > 1:
            raise ConfigError(field, UNSET if value is None else value, "is given twice")
    return axis


def _missing(cell: Knobs, spec: ServerSpec) -> str | None:
    """What a knob of the cell needs that the cell does not have; None where all do what they say."""
    chosen = cell.chosen()
    for name in chosen:
        knob = spec.knobs.get(name)
        for other, value in (knob.needs if knob else {}).items():
            if other not in chosen or spelled(chosen[other]) != spelled(value):
                return f"{name} does nothing without {other} {shown(value)}"
    return None
