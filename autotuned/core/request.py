"""The request of `start`: every field is validated once, here, and nowhere else.

`parse` turns parameters into a TuneRequest, and raises ConfigError that names the field, the value and
the rule. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from autotuned.descriptions import SHIPPED, Descriptions
from autotuned.errors import ConfigError, invalid, unknown
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import TABLE, UNSET, Value, shown

*_, CONTEXT = TABLE
"""The knob whose cells begin at the target context."""


def as_tuple(value: object) -> object:
    """A list of JSON as a strict field of several values takes it."""
    return tuple(value) if isinstance(value, list) else value


def _axis(value: object) -> object:
    value = as_tuple(value)
    if not isinstance(value, tuple):
        return value
    return tuple(None if bits == UNSET else bits for bits in value)


CONTEXT_MAX = 10_000_000
"""Beyond any model's window; a prompt of that many tokens is still built in a second."""
CONTEXT_CEILING = 131_072
"""How far a calibration of the context goes where nobody says less."""

Positive = Annotated[int, Field(ge=1)]
Replicates = Annotated[int, Field(ge=1, le=1000)]
MAX_STREAMS = 256
"""So many requests at once may be asked for."""
Streams = Annotated[int, Field(ge=1, le=MAX_STREAMS)]
Seconds = Annotated[float, Field(gt=0)]
Size = Annotated[str | float, Field(union_mode="left_to_right")]


Context = Annotated[int, Field(ge=1, le=CONTEXT_MAX)]
_CONTEXT = {"type": "integer", "minimum": 1, "maximum": CONTEXT_MAX}
_ONE_OR_SEVERAL = {"anyOf": [_CONTEXT, {"type": "array", "items": _CONTEXT, "minItems": 1}]}


class TuneRequest(BaseModel):
    """What `start` takes. Durations in seconds, TTFT in milliseconds, contexts in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    target_context: Annotated[Context, WithJsonSchema(_ONE_OR_SEVERAL)] = 2000
    further_contexts: SkipJsonSchema[Annotated[tuple[Context, ...], Field(exclude=True)]] = ()
    """Larger ones that the same run answers too, ascending; asked for as a list of target contexts."""
    candidate_models: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
    candidates: str | None = None
    """The name of a list of models, instead of the server's default list."""
    max_model_size: Size | None = None
    min_model_size: Size | None = None
    kv_bits_axis: Annotated[tuple[int | None, ...], BeforeValidator(_axis)] = TABLE[0].choices
    max_batch_axis: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = (1, 2)
    max_context_axis: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = ()
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
    context_ceiling: Annotated[int, Field(ge=1, le=CONTEXT_MAX)] = CONTEXT_CEILING
    context_quantum: Positive | None = None
    concurrency_ceiling: Streams = 32
    ttft_ceiling_ms: Positive | None = None
    """What a person still finds useful; the gate where nobody says."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.15
    trigger: Literal["manual", "schedule", "os_update", "noise", "check"] = "manual"

    @model_validator(mode="before")
    @classmethod
    def _several(cls, fields: dict[str, object]) -> dict[str, object]:
        several = fields.get("target_context")
        if not isinstance(several, list | tuple) or not several:
            return fields
        if not all(type(context) is int for context in several):
            return fields
        first, *further = sorted(several)
        return {**fields, "target_context": first, "further_contexts": tuple(further)}

    @field_serializer("target_context")
    def _as_asked(self, first: int) -> int | list[int]:
        return [first, *self.further_contexts] if self.further_contexts else first

    @property
    def contexts(self) -> tuple[int, ...]:
        """Every target context, ascending."""
        return (self.target_context, *self.further_contexts)

    @property
    def scheduled(self) -> bool:
        """Nobody is there who could start again by hand what this run stops."""
        return self.trigger in ("schedule", "os_update")

    @property
    def ceiling_ms(self) -> int:
        """The TTFT under which a calibrated point passes."""
        return self.ttft_ceiling_ms or self.gate_ttft_ms


def parse(params: Mapping[str, object], named: Descriptions = SHIPPED) -> TuneRequest:
    """The request, or ConfigError for its first problem. `named`: the servers and lists that there are."""
    for name, value in params.items():
        if name not in TuneRequest.model_fields:
            rule = "is not a parameter of start"
            raise unknown(name, value, rule, TuneRequest.model_fields)
    try:
        request = TuneRequest.model_validate(dict(params))
    except ValidationError as error:
        problem = invalid(error)
        if problem.field == "further_contexts":
            problem = ConfigError("target_context", problem.value, problem.rule)
        elif problem.field == "target_context" and isinstance(problem.value, list):
            rule = "should be a number of tokens, or a list of such numbers"
            problem = ConfigError(problem.field, problem.value, rule)
        if problem.field == "max_context_axis":
            rule = problem.rule + _floor(usable(params))
            raise ConfigError(problem.field, problem.value, rule) from None
        raise problem from None
    _check_contexts(request, params)
    _check_names(request, named)
    _check_axes(request)
    ceiling = request.context_ceiling
    bounded = request.calibrate_context or ceiling != CONTEXT_CEILING
    if bounded and ceiling < request.target_context:
        rule = f"is below the target context of {request.target_context} tokens"
        raise ConfigError("context_ceiling", ceiling, rule)
    if request.ceiling_ms > request.gate_ttft_ms:
        rule = f"is above the gate of {request.gate_ttft_ms} ms"
        raise ConfigError("ttft_ceiling_ms", request.ceiling_ms, rule)
    return request


def fitted(request: TuneRequest, kind: str, spec: ServerSpec) -> TuneRequest:
    """The request without what `kind` cannot do in axes that were left at their default.

    Raises ConfigError for a value that was asked for, and where no value of an axis is left.
    """
    update: dict[str, object] = {}
    for knob in TABLE:
        axis, field = getattr(request, knob.axis), knob.axis
        if knob is CONTEXT and not axis and knob.name in spec.knobs:
            axis, field = request.contexts, "target_context"
        left = tuple(value for value in axis if spec.rule(knob.name, value) is None)
        if left == axis:
            continue
        if not left or field in request.model_fields_set:
            value = next(value for value in axis if value not in left)
            rule = spec.rule(knob.name, value)
            raise ConfigError(field, value, f"is not what {kind} can do: {knob.name} {rule}")
        update[field] = left
    return request.model_copy(update=update) if update else request


def usable(params: Mapping[str, object]) -> TuneRequest:
    """What can be used of parameters that were refused, and the defaults elsewhere: for the record of the refusal."""
    kept: dict[str, object] = {}
    for name, value in params.items():
        try:
            TuneRequest.model_validate({name: value})
        except ValidationError:
            continue
        kept[name] = value
    return TuneRequest.model_validate(kept)


def _check_contexts(request: TuneRequest, params: Mapping[str, object]) -> None:
    for context in request.further_contexts:
        if request.contexts.count(context) > 1:
            raise ConfigError("target_context", params["target_context"], f"has {context} twice")
    if request.further_contexts and request.calibrate_context:
        rule = "cannot be given beside several target contexts"
        raise ConfigError("calibrate_context", True, rule)


def _check_names(request: TuneRequest, named: Descriptions) -> None:
    if (
        request.provider is not None
        and (rule := named.server_rule(request.provider, "auto")) is not None
    ):
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
