"""Whether the last good recipe is still this machine's: fingerprint then and now, to reasons in words.

A fact that was not recorded then, or cannot be read now, is no difference: only what is known to have
changed makes a recipe stale. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotuned.core.candidates import identity
from autotuned.core.request import TuneRequest
from autotuned.documents.schedule import StaleResult

NAMED = 3
"""Models that a reason names before it only counts the rest."""

CONSENTS = ("drain", "apply", "restart_foreground")
"""Fields of a request by which the operator lets a run touch what is theirs: never repeated by ourselves."""

CHECKED = ("max_duration", "port", "drain_grace", "retain_runs")
"""Those that a check takes, too."""

ONCE = ("trigger", "resume", "ignore_quarantine")
"""Fields that belong to one run alone."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a recipe holds for. Empty text: not recorded, or not to be read.

    `binary_version` is `sha256:...` where the serving program has no version.
    """

    os_version: str
    os_build: str
    provider: str
    binary_version: str
    chip: str
    ram_gb: int
    candidate_models: tuple[str, ...]
    target_context: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` in words, none when fresh; `last_run_id` None: never tuned. `os_changed` is among the reasons."""

    reasons: tuple[str, ...]
    last_run_id: str | None
    os_changed: bool = False
    checkable: bool = False
    """Only the machine or its serving program has changed: a check can answer that."""

    @property
    def never_tuned(self) -> bool:
        """There is no good run to compare with; that is not the same as a stale one."""
        return self.last_run_id is None

    @property
    def fresh(self) -> bool:
        """Tuned, and nothing has changed since."""
        return not self.never_tuned and not self.reasons

    def document(self) -> StaleResult:
        return {
            "stale": bool(self.reasons),
            "never_tuned": self.never_tuned,
            "reasons": list(self.reasons),
            "last_run_id": self.last_run_id,
        }


def compare(then: Fingerprint, now: Fingerprint, run_id: str, *others: str) -> Verdict:
    """What differs, the operating system first; `others` are reasons that the caller has found itself."""
    system = _system(then, now)
    machine = (
        system,
        _provider(then, now),
        _changed("chip", then.chip, now.chip),
        _changed("RAM", _size(then.ram_gb), _size(now.ram_gb)),
    )
    asked = (
        _candidates(then.candidate_models, now.candidate_models),
        _changed("target context", str(then.target_context), f"{now.target_context} tokens")
        if then.target_context != now.target_context
        else None,
        *others,
    )
    reasons = tuple(reason for reason in (*machine, *asked) if reason)
    serves = bool(now.binary_version) and then.provider in ("", now.provider)
    checkable = serves and any(machine) and not any(asked)
    return Verdict(reasons, run_id, os_changed=system is not None, checkable=checkable)


def repeated(last: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """The parameters with which the last good request is made again, `own` fields on top.

    What the last one allowed a run to touch is not repeated, nor a field that `own` makes meaningless.
    """
    kept = {
        name: value
        for name, value in last.items()
        if name in TuneRequest.model_fields and name not in (*CONSENTS, *ONCE)
    }
    sizes = ("max_model_size", "min_model_size")
    if "candidate_models" in own or any(name in own for name in sizes):
        kept = {name: kept[name] for name in kept if name not in (*sizes, "candidate_models")}
    if "target_context" in own:
        kept.pop("max_context_axis", None)
    return {**kept, **own}


def _system(then: Fingerprint, now: Fingerprint) -> str | None:
    version = _changed("", then.os_version, now.os_version)
    return version or _changed(f"{now.os_version} build", then.os_build, now.os_build)


def _provider(then: Fingerprint, now: Fingerprint) -> str | None:
    if not now.binary_version:
        return f"provider {then.binary_version} -> not found"
    if then.provider and then.provider != now.provider:
        return (
            f"provider {then.provider} {then.binary_version} -> {now.provider} {now.binary_version}"
        )
    return _changed("provider", then.binary_version, now.binary_version)


def _candidates(then: Sequence[str], now: Sequence[str]) -> str | None:
    before, after = list(map(identity, then)), list(map(identity, now))
    if before == after or not before or not after:
        return None
    added = [model for model in now if identity(model) not in before]
    gone = [model for model in then if identity(model) not in after]
    if not added and not gone:
        return "candidate list in another order"
    parts = [f"+ {_named(added)}"] if added else []
    parts += [f"- {_named(gone)}"] if gone else []
    return f"candidate list: {'; '.join(parts)}"


def _named(models: Sequence[str]) -> str:
    rest = len(models) - NAMED
    return ", ".join(models[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _size(gigabytes: int) -> str:
    return f"{gigabytes} GB" if gigabytes else ""


def _changed(what: str, then: str, now: str) -> str | None:
    """`macOS 26.3 -> 26.4`: the words that both begin with are said once."""
    if then == now or _unknown(then) or _unknown(now):
        return None
    before, after = then.split(), now.split()
    common = 0
    while common < min(len(before), len(after)) - 1 and before[common] == after[common]:
        common += 1
    return f"{what} {then} -> {' '.join(after[common:])}".strip()


def _unknown(fact: str) -> bool:
    return not fact or fact.endswith("unknown")
