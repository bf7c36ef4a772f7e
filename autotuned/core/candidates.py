"""The ordered list of candidates: where it comes from, how large each is, which are alternates.

The order given is the contract: nothing here sorts, ranks or skips ahead. Pure.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from autotuned.core.model import Candidate
from autotuned.errors import ConfigError
from autotuned.shared.paths import is_path

Catalogue = Sequence[tuple[str, float | None]]
"""Model ids with their parameters in billions, largest first."""

_SIZE = re.compile(
    r"(?<![A-Za-z0-9])(?<!\d\.)(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE
)
_LIMIT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([BM]?)\s*", re.IGNORECASE)
_BILLIONS = {"B": 1.0, "": 1.0, "M": 0.001}
_ASCII_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_ID_MAX_BYTES = 4096


def identity(model: str) -> str:
    """Two ids are the same model when this is equal: Unicode NFC, then ASCII case-folded."""
    return unicodedata.normalize("NFC", model).translate(_ASCII_FOLD)


def size_b(model: str, catalogue: Catalogue = ()) -> float | None:
    """Parameters in billions: the catalogue's figure, else the largest size token of the name, else None."""
    listed = {identity(name): size for name, size in catalogue}
    if identity(model) in listed:
        return listed[identity(model)]
    name = model.rstrip("/").rsplit("/", 1)[-1] if is_path(model) else model
    sizes = [
        float(experts or 1) * float(number) * _BILLIONS[unit.upper()]
        for experts, number, unit in _SIZE.findall(name)
    ]
    return max(filter(math.isfinite, sizes), default=None)


def parse_limit(field: str, value: str | float | None) -> float | None:
    """A size limit in billions of parameters from `16B`, `7b`, `500M` or a plain number. Raises ConfigError."""
    if value is None:
        return None
    found = _LIMIT.fullmatch(str(value))
    if isinstance(value, bool) or found is None or not 0 < float(found[1]) < math.inf:
        raise ConfigError(
            field, value, "is not a size such as 16B, 7b, 0.5B or 7 (billions of parameters)"
        )
    return float(found[1]) * _BILLIONS[found[2].upper()]


def explicit(models: Sequence[str], catalogue: Catalogue) -> tuple[Candidate, ...]:
    """The list that was given, verbatim and ranked from 1. Raises ConfigError for a blank, odd or double id."""
    if not models:
        raise ConfigError("candidate_models", list(models), "is empty: name at least one model")
    seen: dict[str, str] = {}
    for model in models:
        rule = _broken_rule(model)
        if rule is not None:
            raise ConfigError("candidate_models", model, rule)
        first = seen.setdefault(identity(model), model)
        if first is not model or list(models).count(model) > 1:
            raise ConfigError(
                "candidate_models", model, f"is given twice (the first time as {first!r})"
            )
    return _ranked(models, catalogue)


def defaults(
    catalogue: Catalogue, largest: float | None, smallest: float | None
) -> tuple[Candidate, ...]:
    """The provider's default list between two sizes in billions, both inclusive. Raises ConfigError when none is left."""
    if not catalogue:
        raise ConfigError(
            "candidate_models", None, "must be given: this provider has no default list"
        )
    kept = [
        model
        for model, size in catalogue
        if (largest is None or (size is not None and size <= largest))
        and (smallest is None or (size is not None and size >= smallest))
    ]
    if not kept:
        field, value = (
            ("max_model_size", largest) if largest is not None else ("min_model_size", smallest)
        )
        sizes = ", ".join("unknown" if size is None else f"{size:g}B" for _, size in catalogue)
        raise ConfigError(
            field, f"{value:g}B", f"leaves no candidate of the default list ({sizes})"
        )
    return _ranked(kept, catalogue)


def alternates(
    candidates: Sequence[Candidate], chosen: Candidate, probed: Iterable[str]
) -> tuple[str, ...]:
    """Names of the candidates that were not probed and are smaller than `chosen`, in input order.

    Where either size is unknown, later in the list counts as smaller.
    """
    tried = set(probed)
    return tuple(
        candidate.model
        for candidate in candidates
        if candidate.model not in tried and _smaller(candidate, chosen)
    )


def smallest_first(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Ascending by size; a candidate of unknown size keeps its place in the reversed input order."""
    backwards = list(reversed(candidates))
    known = iter(
        sorted((c for c in backwards if c.size_b is not None), key=lambda c: c.size_b or 0.0)
    )
    return tuple(candidate if candidate.size_b is None else next(known) for candidate in backwards)


def _smaller(candidate: Candidate, chosen: Candidate) -> bool:
    if candidate.size_b is None or chosen.size_b is None:
        return candidate.rank > chosen.rank
    return candidate.size_b < chosen.size_b


def _ranked(models: Iterable[str], catalogue: Catalogue) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(model, rank, size_b(model, catalogue))
        for rank, model in enumerate(models, start=1)
    )


def _broken_rule(model: str) -> str | None:
    if not model.strip():
        return "is blank"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in model):
        return "holds control characters"
    if model.startswith("-"):
        return "starts with a dash, which servers read as a flag"
    if len(model.encode()) > _ID_MAX_BYTES:
        return f"is longer than {_ID_MAX_BYTES} bytes"
    return None
