"""What of a recipe may go into a configuration as it stands, and what is said about the rest.

The provider of today ties its model to an artifact, ignores or refuses some knobs beside other keys,
and keeps an operator's own values: none of that is lost to a recipe that did not look for better. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuned.core.config.reader import (
    BOM,
    OWNED,
    PROVENANCE,
    SOURCE,
    WRITTEN,
    ConfigFile,
    Refused,
    Scalar,
    read,
)

MODEL, KV_BITS, SLOTS, CONTEXT = OWNED
BINDING = ("model_artifact_", "model_catalog_")
"""How the keys begin that bind the provider's model to its artifact."""
BATCHING, DEPTH, DRAFT = "continuous_batching", "max_concurrency_depth_override", "draft_model"
SUPPORTED = "supported_models"
OWNER = "owner"
"""Without this source the provider counts its slots itself."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a recipe is written: the keys that its run decided, and what the operator has asked for."""

    decided: frozenset[str] = frozenset(OWNED)
    knobs_only: bool = False
    all_knobs: bool = False


WHOLE = Terms()
"""All of it, as one would write a recipe of whose every knob one is sure."""


@dataclass(frozen=True, slots=True)
class Bound(Refused):
    """The refusal of another model in a file whose `keys` bind the one that it has."""

    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """The keys to write with their values, None for a key that goes, and remarks on what is not as one may expect."""

    wanted: Mapping[str, Scalar]
    remarks: tuple[str, ...] = ()


def decided(request: Mapping[str, Any]) -> frozenset[str]:
    """The owned keys that a run of this request chose among values, or calibrated; the others it only used."""
    chosen = {MODEL}
    axes = {KV_BITS: "kv_bits_axis", SLOTS: "max_batch_axis", CONTEXT: "max_context_axis"}
    chosen |= {key for key, axis in axes.items() if len(request.get(axis) or ()) > 1}
    if (request.get("concurrency") or 1) > 1 or request.get("calibrate_concurrency"):
        chosen.add(SLOTS)
    if request.get("calibrate_context"):
        chosen.add(CONTEXT)
    return frozenset(chosen)


def select(text: str, recipe: Mapping[str, Scalar], terms: Terms) -> Selection | Refused:
    """What of `recipe`, which has every owned key, is to be written into `text`."""
    file = read(text.removeprefix(BOM))
    if isinstance(file, Refused):
        return file
    bound = binding(file)
    if bound and not terms.knobs_only and not file.has(MODEL, recipe[MODEL]):
        return Bound(_bound_reason(bound), bound)
    wanted = {key: recipe[key] for key in OWNED if key != MODEL or not terms.knobs_only}
    remarks: list[str] = []
    # Keys that only the newer builds of the provider know.
    of_today = (SOURCE, DEPTH, PROVENANCE, BATCHING)
    newer = bool(bound) or any(file.named(key) is not None for key in of_today)
    for key in OWNED:
        if key not in wanted or key in terms.decided or file.has(key, recipe[key]):
            continue
        now = file.shown(key)
        if newer and not terms.all_knobs:
            del wanted[key]
            remarks.append(
                f"kept: {key} {_word(now)} (this run measured at {_word(recipe[key])} and did not search it); "
                "--all-knobs writes it"
            )
        elif _lowers(now, recipe[key]):
            remarks.append(
                f"{key} is lowered from {now} to {recipe[key]}: this run measured at {recipe[key]} "
                "and did not search it"
            )
    remarks += _leave_out_what_it_refuses(file, wanted)
    if newer and SLOTS in wanted:
        wanted[SOURCE] = OWNER
    if CONTEXT in wanted and file.named(PROVENANCE) is not None:
        wanted[PROVENANCE] = None
    ordered = {key: wanted[key] for key in WRITTEN if key in wanted}
    return Selection(ordered, tuple(remarks))


def binding(file: ConfigFile) -> tuple[str, ...]:
    keys = (entry.key or "" for entry in file.entries)
    return tuple(key for key in keys if key.startswith(BINDING) and file.shown(key) is not None)


def pins(text: str, model: str) -> list[str]:
    """The keys beside `model` that still name another model; empty for a file that cannot be read."""
    file = read(text.removeprefix(BOM))
    if isinstance(file, Refused):
        return []
    found = []
    for entry in file.entries:
        key = entry.key or ""
        named = key == DRAFT or key.startswith(BINDING)
        if named or key == SUPPORTED:
            values = [file.scalar(number) for number in range(entry.value, entry.last)]
            values = [value for value in values if isinstance(value, str | int)]
            if values and (named or model not in values):
                found.append(key)
    return found


def bound_warning(text: str, models: Sequence[str]) -> str | None:
    """Why an apply of some of these candidates will be refused; None where it will not."""
    file = read(text.removeprefix(BOM))
    bound = () if isinstance(file, Refused) else binding(file)
    if isinstance(file, Refused) or not bound or all(file.has(MODEL, model) for model in models):
        return None
    return f"another model than {file.shown(MODEL)} will not be applied: the configuration {_bound_reason(bound)}"


def _bound_reason(keys: tuple[str, ...]) -> str:
    return (
        f"binds its model with {', '.join(keys)}, and the provider does not start with another one: "
        "take the knobs alone with --knobs-only (autotunectl apply --knobs-only), or let the provider "
        "change its model: macprovider-cli autotune --recommend --apply"
    )


def _leave_out_what_it_refuses(file: ConfigFile, wanted: dict[str, Scalar]) -> list[str]:
    """Take the knobs out of `wanted` beside which the provider would not start; what there is to say."""
    remarks = []
    slots, bits = wanted.get(SLOTS), wanted.get(KV_BITS)
    if isinstance(slots, int) and slots > 1 and file.shown(DRAFT) is not None:
        del wanted[SLOTS]
        remarks.append(
            f"not written: {SLOTS} {slots} ({DRAFT} is set, and the provider refuses more than one slot beside it)"
        )
    if bits is not None and file.shown(BATCHING) == "on":
        del wanted[KV_BITS]
        remarks.append(
            f"not written: {KV_BITS} {bits} ({BATCHING} is on, and the provider refuses any {KV_BITS} beside it)"
        )
    elif bits is not None and file.shown(BATCHING) == "canary":
        remarks.append(f"{KV_BITS} {bits} beside {BATCHING} canary: batching will be serial")
    return remarks


def _lowers(now: Scalar, value: Scalar) -> bool:
    return isinstance(now, int) and isinstance(value, int) and value < now


def _word(value: Scalar) -> Scalar:
    return "unset" if value is None else value
