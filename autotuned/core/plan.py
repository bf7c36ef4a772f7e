"""What a valid request comes to: the ordered candidates, and the cells in the order of their evaluation.

The cells are of the three knobs of every server, and of whichever of the server's own were asked for: its
description says which there are, and under which others each of them does anything. Pure.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotuned.core import candidates, quality, search
from autotuned.core.model import Candidate
from autotuned.core.request import CONTEXT, MAX_STREAMS, TuneRequest
from autotuned.errors import ConfigError, unknown
from autotuned.server_spec import ServerSpec, spelled
from autotuned.shared.knobs import TABLE, UNSET, Knobs, Value, shown

PROMPT_MIN_TOKENS = 64
AXES = "axes"
MOST_CELLS = 5000
"""A space of more is a slip of the keyboard; all that may be measured must pass through the socket."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """The cells are so many times the same pair, out of an earlier run: a measurement of noise.

    `check`: its recipe is started once instead, without a probe.
    """

    of_run: str
    pairs: int
    check: bool = False
    pair: tuple[Knobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a valid request comes to: `candidates` in order, `cells` in the order of their evaluation.

    With `repeats` none of the cells is kept, and there is nothing to recommend.
    """

    request: TuneRequest
    candidates: tuple[Candidate, ...]
    cells: tuple[Knobs, ...]
    warnings: tuple[str, ...] = ()
    seed: int | None = None
    trials: int | None = None
    """How many of the cells a search measures at most, in an order of its own; None where all are measured."""
    left_out: int = 0
    """Cells that were dropped since a knob of theirs would do nothing."""
    repeats: Repeats | None = None
    lossy: frozenset[str] = frozenset()
    """Names of the knobs of this server that may change its answers."""
    profiles: tuple[Plan, ...] = ()
    """The same for each target context, ascending, where there are several."""
    first_rank: int = 1
    """The candidate with which the walk begins: what could not serve less context is not tried again."""
    live_model: str | None = None
    """The candidate that was asked for as `live`."""
    window: int | None = None
    """The chosen model's own context in tokens, where its weights say it and it is calibrated."""
    single_stream: bool = False
    """Whether the server answers one request at a time, whatever it is asked."""
    slots_at_once: bool = False
    """Whether one start, with all slots that are in question, serves every number of streams."""
    batches: tuple[int, ...] = ()
    """The values that the server's `max_batch` can have, ascending; empty where it has no such knob."""
    live_recipe: tuple[str, Knobs] | None = None
    """The model that the live provider serves and its knobs, where they are known."""

    def warned(self, doubts: Iterable[str]) -> Plan:
        return replace(self, warnings=(*self.warnings, *doubts))

    @property
    def together(self) -> int:
        """So many cells follow each other without a pause: one, or a pair's."""
        return 1 if self.repeats is None else len(self.cells) // self.repeats.pairs

    @property
    def plain(self) -> bool:
        """Whether it asks for no more than the contract has: its three axes, every cell."""
        return self.trials is None and not self.request.axes

    @property
    def profile(self) -> int | None:
        """The target context that trials of this plan are for, where a run has several."""
        return self.request.target_context if self.profiles else None

    def parts(self) -> tuple[Plan, ...]:
        """A plan for each target context, ascending; this one where there is but one."""
        return tuple(
            replace(self, request=each.request, cells=each.cells, trials=each.trials)
            for each in self.profiles
        ) or (self,)

    @property
    def most(self) -> int:
        return len(self.cells) if self.trials is None else self.trials


def plan(
    request: TuneRequest,
    catalogue: candidates.Catalogue,
    max_tokens: int,
    seed: int,
    server: ServerSpec | None = None,
) -> Plan:
    """Candidates, cells and warnings. `max_tokens` is the answer's length; `seed` orders random cells.

    `server` describes whose knobs may be asked for.
    """
    whole = _plan(request, catalogue, max_tokens, seed, server)
    if server is not None:
        slots = server.knobs.get("max_batch")
        counts = () if slots is None else range(1, MAX_STREAMS + 1)
        whole = replace(
            whole,
            single_stream=server.single_stream,
            slots_at_once=server.slots_at_once or slots is None,
            batches=tuple(count for count in counts if slots and slots.rule(count) is None),
        )
    profiles = [whole]
    for context in request.further_contexts:
        axis = tuple(value for value in request.max_context_axis if value >= context)
        changed = {"target_context": context, "max_context_axis": axis}
        one = whole.request.model_copy(update=changed)
        profiles.append(_plan(one, catalogue, max_tokens, seed, server))
    return whole if len(profiles) == 1 else replace(whole, profiles=tuple(profiles))


def _plan(
    request: TuneRequest,
    catalogue: candidates.Catalogue,
    max_tokens: int,
    seed: int,
    server: ServerSpec | None,
) -> Plan:
    floor = max_tokens + PROMPT_MIN_TOKENS
    if request.target_context < floor:
        rule = f"is too small: {max_tokens} tokens of answer and a prompt of {PROMPT_MIN_TOKENS} need {floor}"
        raise ConfigError("target_context", request.target_context, rule)
    chosen, warnings = _candidates(request, catalogue)
    cells, left_out = _spanned(_cells(request), request.axes, server)
    seed = seed if request.seed is None else request.seed
    lossy = lossy_knobs(server)
    searches = request.search == "tpe" or (
        request.search == "auto" and len(cells) > search.GRID_CELLS
    )
    if request.cell_order == "reverse" and not searches:
        cells = cells[::-1]
    elif request.cell_order == "random" and not searches:
        cells = tuple(random.Random(seed).sample(cells, len(cells)))
    if request.quality != "off":
        cells = quality.lossless_first(cells, lossy)
    if searches:
        whole = Plan(request, chosen, cells, warnings, seed, 0, left_out, lossy=lossy)
        return _searching(request, whole)
    used = seed if request.cell_order == "random" else None
    return Plan(request, chosen, cells, warnings, used, None, left_out, lossy=lossy)


def lossy_knobs(server: ServerSpec | None) -> frozenset[str]:
    knobs = {} if server is None else server.knobs
    return frozenset(name for name, knob in knobs.items() if knob.lossy)


def _searching(request: TuneRequest, whole: Plan) -> Plan:
    """The plan of a search: the server's defaults first, no more cells than asked for."""
    if request.cell_order != "axis":
        whole = whole.warned(["cell_order is ignored: the search decides the order"])
    if "replicates" not in request.model_fields_set:  # a cell that cannot win costs one request
        request = request.model_copy(update={"replicates": "auto"})
    first = whole.cells[0]
    defaults = first._replace(extra=tuple((name, None) for name, _ in first.extra))
    cells = (defaults, *(cell for cell in whole.cells if cell != defaults))
    trials = min(len(cells), request.trials or search.trials_for(len(cells)))
    return replace(whole, request=request, cells=cells, trials=trials)


def _candidates(
    request: TuneRequest, catalogue: candidates.Catalogue
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    largest = candidates.parse_limit("max_model_size", request.max_model_size)
    smallest = candidates.parse_limit("min_model_size", request.min_model_size)
    if request.candidate_models is None:
        return candidates.defaults(catalogue, largest, smallest), ()
    listed = candidates.explicit(request.candidate_models, catalogue)
    if largest is None and smallest is None:
        return listed, ()
    return listed, ("candidate_models is given, so max_model_size and min_model_size are ignored",)


def _cells(request: TuneRequest) -> tuple[Knobs, ...]:
    contexts = sorted(request.max_context_axis) or [request.target_context]
    return tuple(
        itertools.starmap(
            Knobs,
            itertools.product(
                *(contexts if knob is CONTEXT else getattr(request, knob.axis) for knob in TABLE)
            ),
        )
    )


def _spanned(
    base: Sequence[Knobs], axes: Mapping[str, Sequence[Value]], server: ServerSpec | None
) -> tuple[tuple[Knobs, ...], int]:
    """The product of `base` and the axes, in their order, and how many were left out since a knob would do nothing.

    Raises ConfigError for an axis that cannot be.
    """
    if not axes:
        return tuple(base), 0
    spec = ServerSpec(command=("server",)) if server is None else server
    checked = {name: _axis(name, axis, spec) for name, axis in axes.items()}
    number = len(base) * math.prod(map(len, checked.values()))
    if number > MOST_CELLS:
        rule = f"span {number} cells, more than {MOST_CELLS}: leave out some values"
        raise ConfigError(AXES, list(axes), rule)
    cells = tuple(
        cell._replace(extra=tuple(zip(checked, values, strict=True)))
        for cell in base
        for values in itertools.product(*checked.values())
    )
    able = tuple(cell for cell in cells if not _missing(cell, spec))
    if not able:
        rule = f"leave no cell: {_missing(cells[0], spec)}"
        raise ConfigError(AXES, list(axes), rule)
    return able, len(cells) - len(able)


def _axis(name: str, values: Sequence[Value], spec: ServerSpec) -> tuple[Value, ...]:
    """The values of one axis, the knob's own where none are given."""
    field = f"{AXES}.{name}"
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
    axis = tuple(values) or knob.default_axis or tuple(knob.values or ())
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
