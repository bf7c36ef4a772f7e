"""The request of `start`: every field is validated once, here, and nowhere else.

`parse` turns parameters into a TuneRequest, `plan` turns that into what will be done: the ordered
candidates and the cells in the order of their evaluation. Both raise ConfigError that names the
field, the value and the rule. Pure.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autotuned.core import candidates, quality, search, space
from autotuned.core.model import Candidate
from autotuned.descriptions import SHIPPED, Descriptions
from autotuned.errors import ConfigError, invalid, unknown
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import TABLE, UNSET, Knobs, Value, shown

*_, CONTEXT = TABLE
"""The knob whose cells begin at the target context."""
PROMPT_MIN_TOKENS = 64


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _axis(value: Any) -> Any:
    value = _tuple(value)
    return (
        tuple(None if bits == UNSET else bits for bits in value)
        if isinstance(value, tuple)
        else value
    )


CONTEXT_MAX = 10_000_000
"""Beyond any model's window; a prompt of that many tokens is still built in a second."""

Positive = Annotated[int, Field(ge=1)]
Replicates = Annotated[int, Field(ge=1, le=1000)]
Streams = Annotated[int, Field(ge=1, le=256)]
Seconds = Annotated[float, Field(gt=0)]
Size = Annotated[str | float, Field(union_mode="left_to_right")]


class TuneRequest(BaseModel):
    """What `start` takes. Durations in seconds, TTFT in milliseconds, contexts in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    target_context: Annotated[int, Field(ge=1, le=CONTEXT_MAX)] = 2000
    candidate_models: Annotated[tuple[str, ...] | None, BeforeValidator(_tuple)] = None
    candidates: str | None = None
    """The name of a list of models, instead of the server's default list."""
    max_model_size: Size | None = None
    min_model_size: Size | None = None
    kv_bits_axis: Annotated[tuple[int | None, ...], BeforeValidator(_axis)] = TABLE[0].choices
    max_batch_axis: Annotated[tuple[int, ...], BeforeValidator(_tuple)] = (1, 2)
    max_context_axis: Annotated[tuple[int, ...], BeforeValidator(_tuple)] = ()
    axes: dict[str, Annotated[tuple[Value, ...], BeforeValidator(_axis)]] = {}
    """Values of the server's own knobs, null for its default; an empty list stands for the knob's usual values."""
    search: Literal["grid", "auto", "tpe"] = "grid"
    """Measure every cell, or of a large space only those that look promising."""
    trials: Positive | None = None
    """How many cells a search of promising ones measures at most."""
    stage1_replicates: Replicates = 1
    stage2_replicates: Replicates = 3
    replicates: Literal["fixed", "auto"] = "fixed"
    gate_ttft_ms: Positive = 60_000
    tps_tie_epsilon: Annotated[float, Field(ge=0, lt=1)] = 0.02
    max_duration: Seconds = 7200.0
    drain_grace: Seconds = 30.0
    port: Annotated[int, Field(ge=1, le=65_535)] = 18_080
    retain_runs: Positive = 50
    drain: bool = False
    restart_foreground: bool = False
    apply: bool = False
    knobs_only: bool = False
    """Of an apply: leave the model as it stands in the configuration."""
    all_knobs: bool = False
    """Of an apply: also write the knobs that the run did not search over values that stand there."""
    provider: str | None = None
    static_fit_check: bool = True
    verify: bool = False
    cell_order: Literal["axis", "reverse", "random"] = "axis"
    seed: int | None = None
    cooldown_s: Annotated[float, Field(ge=0)] = 0.0
    thermal_gate: bool = False
    confirm: bool = False
    """Start the winner again, in turns with the defaults and with what the live provider runs."""
    quality: Literal["off", "warn", "veto"] = "off"
    """Compare the answers of lossy cells with those of the lossless one; `veto`: a broken one cannot win."""
    ignore_quarantine: bool = False
    """Start also what took the machine down before."""
    resume: str | None = None
    """The id of a run that was cut off, or `latest`: go on with that one."""
    concurrency: Streams = 1
    """Requests in flight at once, in both stages."""
    calibrate_context: bool = False
    calibrate_concurrency: bool = False
    context_ceiling: Annotated[int, Field(ge=1, le=CONTEXT_MAX)] = 131_072
    context_quantum: Positive | None = None
    concurrency_ceiling: Streams = 32
    ttft_ceiling_ms: Positive | None = None
    """What a person still finds useful; the gate where nobody says."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.15
    trigger: Literal["manual", "schedule", "os_update", "noise", "check"] = "manual"

    @property
    def scheduled(self) -> bool:
        """Nobody is there who could start again by hand what this run stops."""
        return self.trigger in ("schedule", "os_update")

    @property
    def ceiling_ms(self) -> int:
        """The TTFT under which a calibrated point passes."""
        return self.ttft_ceiling_ms or self.gate_ttft_ms


@dataclass(frozen=True, slots=True)
class Repeats:
    """The cells are so many times the same pair, out of an earlier run: a measurement of noise.

    `check`: its recipe is started once instead, without a probe.
    """

    of_run: str
    pairs: int
    check: bool = False


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
    live_model: str | None = None
    """The candidate that was asked for as `live`."""
    window: int | None = None
    """The chosen model's own context in tokens, where its weights say it and it is calibrated."""
    single_stream: bool = False
    """Whether the server answers one request at a time, whatever it is asked."""
    live_recipe: tuple[str, Knobs] | None = None
    """The model that the live provider serves and its knobs, where they are known."""

    def warned(self, doubts: Iterable[str]) -> Plan:
        """The same with more warnings."""
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
    def most(self) -> int:
        """How many cells are measured at most."""
        return len(self.cells) if self.trials is None else self.trials


def parse(params: Mapping[str, Any], named: Descriptions = SHIPPED) -> TuneRequest:
    """The request, or ConfigError for its first problem. `named`: the servers and lists that there are."""
    for name, value in params.items():
        if name not in TuneRequest.model_fields:
            rule = "is not a parameter of start"
            raise unknown(name, value, rule, TuneRequest.model_fields)
    try:
        request = TuneRequest.model_validate(dict(params))
    except ValidationError as error:
        problem = invalid(error)
        if problem.field == "max_context_axis":
            rule = problem.rule + _floor(usable(params))
            raise ConfigError(problem.field, problem.value, rule) from None
        raise problem from None
    _check_names(request, named)
    _check_axes(request)
    if request.calibrate_context and request.context_ceiling < request.target_context:
        rule = f"is below the target context of {request.target_context} tokens"
        raise ConfigError("context_ceiling", request.context_ceiling, rule)
    if request.ceiling_ms > request.gate_ttft_ms:
        rule = f"is above the gate of {request.gate_ttft_ms} ms"
        raise ConfigError("ttft_ceiling_ms", request.ceiling_ms, rule)
    return request


def fitted(request: TuneRequest, kind: str, spec: ServerSpec) -> TuneRequest:
    """The request without what `kind` cannot do in axes that were left at their default.

    Raises ConfigError for a value that was asked for, and where no value of an axis is left.
    """
    update: dict[str, Any] = {}
    for knob in TABLE:
        axis, field = getattr(request, knob.axis), knob.axis
        if knob is CONTEXT and not axis and knob.name in spec.knobs:
            axis, field = (request.target_context,), "target_context"
        left = tuple(value for value in axis if spec.rule(knob.name, value) is None)
        if left == axis:
            continue
        if not left or field in request.model_fields_set:
            value = next(value for value in axis if value not in left)
            rule = spec.rule(knob.name, value)
            raise ConfigError(field, value, f"is not what {kind} can do: {knob.name} {rule}")
        update[field] = left
    return request.model_copy(update=update) if update else request


def usable(params: Mapping[str, Any]) -> TuneRequest:
    """What can be used of parameters that were refused, and the defaults elsewhere: for the record of the refusal."""
    kept: dict[str, Any] = {}
    for name, value in params.items():
        try:
            TuneRequest.model_validate({name: value})
        except ValidationError:
            continue
        kept[name] = value
    return TuneRequest.model_validate(kept)


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
    floor = max_tokens + PROMPT_MIN_TOKENS
    if request.target_context < floor:
        rule = f"is too small: {max_tokens} tokens of answer and a prompt of {PROMPT_MIN_TOKENS} need {floor}"
        raise ConfigError("target_context", request.target_context, rule)
    chosen, warnings = _candidates(request, catalogue)
    cells, left_out = space.spanned(_cells(request), request.axes, server)
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
    """Names of a server's knobs that may change its answers."""
    knobs = {} if server is None else server.knobs
    return frozenset(name for name, knob in knobs.items() if knob.lossy)


def _searching(request: TuneRequest, whole: Plan) -> Plan:
    """The plan of a search: the server's defaults first, no more cells than asked for."""
    if request.cell_order != "axis":
        whole = whole.warned(["cell_order is ignored: the search decides the order"])
    if "replicates" not in request.model_fields_set:  # a cell that cannot win costs one request
        request = request.model_copy(update={"replicates": "auto"})
    cells = space.with_defaults_first(whole.cells)
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


def _check_names(request: TuneRequest, named: Descriptions) -> None:
    if request.provider is not None and (rule := named.server_rule(request.provider)) is not None:
        raise ConfigError("provider", request.provider, rule)
    if request.candidates is None:
        return
    if request.candidate_models is not None:
        raise ConfigError(
            "candidates", request.candidates, "cannot be given beside candidate_models"
        )
    if (rule := named.list_rule(request.candidates)) is not None:
        raise ConfigError("candidates", request.candidates, rule)


def _check_axes(request: TuneRequest) -> None:
    for knob in TABLE:
        axis: tuple[int | None, ...] = getattr(request, knob.axis)
        floor = _floor(request) if knob is CONTEXT else ""
        if not axis and knob is not CONTEXT:
            raise ConfigError(knob.axis, list(axis), "is empty: an axis needs at least one value")
        for value in axis:
            if axis.count(value) > 1:
                raise ConfigError(
                    knob.axis, UNSET if value is None else value, f"is given twice{floor}"
                )
            if knob.choices and value not in knob.choices:
                known = ", ".join(
                    map(shown, sorted(knob.choices, key=lambda choice: choice is None))
                )
                rule = f"is not a {knob.name} value: {' or '.join(known.rsplit(', ', 1))}"
                raise ConfigError(knob.axis, value, rule)
            if not knob.choices and (value or 0) < 1:
                raise ConfigError(knob.axis, value, f"is not a positive integer{floor}")
    for cell in request.max_context_axis:
        if cell < request.target_context:
            rule = f"is a cell below the target context{_floor(request)}"
            raise ConfigError(CONTEXT.axis, cell, rule)


def _floor(request: TuneRequest) -> str:
    return f"; the floor of this axis is the target context, {request.target_context} tokens"
