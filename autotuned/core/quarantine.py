"""Configurations that took the machine down while they ran: which ones are not started again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotuned.core.candidates import identity
from autotuned.core.model import Failure, FailureKind
from autotuned.core.result import knobs_document
from autotuned.documents.doctor import ConfigurationDocument, QuarantineEntry
from autotuned.shared.knobs import Knobs, read


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was started: `knobs` None is a probe with the server's defaults; `context` is the prompt's and answer's."""

    provider: str
    binary_version: str
    model: str
    knobs: Knobs | None
    context: int

    def document(self) -> ConfigurationDocument:
        """As it is written down, and published."""
        return {
            "provider": self.provider,
            "binary_version": self.binary_version,
            "model": self.model,
            "knobs": None if self.knobs is None else knobs_document(self.knobs),
            "target_context": self.context,
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration in quarantine: when it was started, for which run, in which boot, and which one followed."""

    configuration: Configuration
    at: str
    run_id: str
    boot_id: str
    next_boot_id: str
    id: int = 0

    def document(self) -> QuarantineEntry:
        return {
            "entry": self.id,
            "at": self.at,
            "run_id": self.run_id,
            **self.configuration.document(),
        }


def parse(document: Mapping[str, Any]) -> Configuration:
    """A configuration as it was written down. Raises KeyError or TypeError for another document."""
    knobs = document["knobs"]
    return Configuration(
        document["provider"],
        document["binary_version"],
        document["model"],
        None if knobs is None else read(knobs),
        document["target_context"],
    )


def refusal(entries: Iterable[Entry], wanted: Configuration) -> Failure | None:
    """Why `wanted` is not started; None where it may be.

    A smaller context of what is in quarantine may be, and so may everything of another version of the server.
    """
    for entry in entries:
        down = entry.configuration
        more = all(a <= b for a, b in zip(_contexts(down), _contexts(wanted), strict=True))
        if more and _without_context(down) == _without_context(wanted):
            reason = f"quarantined: the machine went down while it ran on {entry.at[:10]}"
            return Failure(FailureKind.QUARANTINE, reason)
    return None


def _without_context(each: Configuration) -> Configuration:
    knobs = None if each.knobs is None else each.knobs._replace(max_context=0)
    return replace(each, model=identity(each.model), knobs=knobs, context=0)


def _contexts(each: Configuration) -> tuple[int, int]:
    """What is asked for, and what the server may be asked for at most."""
    limit = each.context if each.knobs is None else each.knobs.max_context
    return each.context, limit
