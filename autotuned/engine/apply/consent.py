"""What of a run may be applied, and with whose consent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from autotuned.core.config.policy import Terms, decided
from autotuned.core.model import MachineFacts
from autotuned.documents.result import RecommendationDocument
from autotuned.errors import ApplyRefused
from autotuned.host import operators_file
from autotuned.store.runs import Details, RunRow

CONFIGURED_KIND = "macprovider"
"""The one provider that has a configuration file; the others are told everything on their command line."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What the operator wants, and has agreed to beyond the usual."""

    allow_partial: bool = False
    force: bool = False
    restart: bool = False
    dry_run: bool = False
    knobs_only: bool = False
    all_knobs: bool = False
    context: int | None = None
    """Of a run with several target contexts: whose recommendation; the first one's where it is left out."""

    def terms(self, request: Mapping[str, object]) -> Terms:
        return Terms(decided(request), self.knobs_only, self.all_knobs)


def recommended(row: RunRow, details: Details, consent: Consent) -> RecommendationDocument:
    """The recommendation of a run that may be applied. Raises ApplyRefused."""
    content = json.loads(row.recommendation_json) if row.recommendation_json else None
    if consent.context not in (None, row.target_context):
        known = {each["target_context"]: each for each in details.get("profiles", ())}
        profile = known.get(consent.context)
        if profile is None or profile["recommendation"] is None:
            why = "was not asked for" if profile is None else profile["reason"]
            have = ", ".join(map(str, known or [row.target_context]))
            message = f"run {row.run_id} recommends nothing for {consent.context} tokens ({why}): it has {have}"
            raise ApplyRefused(message, "no_recommendation", run_id=row.run_id)
        content = profile["recommendation"]
    if not content:
        message = f"run {row.run_id} made no recommendation (it ended {row.exit_reason}): choose another with autotunectl runs"
        raise ApplyRefused(message, "no_recommendation", run_id=row.run_id)
    try:
        answer = TypeAdapter(RecommendationDocument).validate_python(content)
    except ValidationError:
        message = f"run {row.run_id} was written by another version and its recommendation cannot be used: tune again"
        raise ApplyRefused(message, "no_recommendation", run_id=row.run_id) from None
    if answer.get("partial") and not consent.allow_partial:
        message = f"the recommendation of run {row.run_id} is partial, not every cell was measured: take it with --allow-partial"
        raise ApplyRefused(message, "partial", run_id=row.run_id)
    return answer


def must_be_this_machine(row: RunRow, facts: MachineFacts, version: str) -> None:
    """A run says nothing of another machine. `version`: of the provider, now. Raises ApplyRefused."""
    pairs = {
        "RAM": (f"{row.machine_ram_gb} GB", f"{facts.ram_gb} GB"),
        "chip": (row.machine_chip, facts.chip),
        "provider's version": (row.binary_version, version),
    }
    other = [f"{name} {was}, now {now}" for name, (was, now) in pairs.items() if was != now]
    if other:
        message = f"run {row.run_id} was measured on another machine ({'; '.join(other)}): tune again, or insist with --force"
        raise ApplyRefused(message, "other_machine", run_id=row.run_id, differences=other)


def must_have_a_file(kind: str, run_id: str) -> None:
    """Only macprovider reads the file: what another server was measured with must not get into it."""
    if kind != CONFIGURED_KIND:
        message = (
            f"run {run_id} was measured with {kind}, which has no configuration file of its own: "
            "start it with the `serve` command of autotunectl show"
        )
        raise ApplyRefused(message, "other_provider", run_id=run_id, provider=kind)


def named_backup(path: Path, name: str | None, absent: Path | None = None) -> Path:
    """The backup of this name, the newest for None. `absent`: where a recipe would stand too, and does not."""
    try:
        found = operators_file.backups(path)
    except OSError as error:
        message = f"{path.parent}: cannot be listed: {error.strerror}"
        raise ApplyRefused(message, "io_error") from error
    if not found:
        message = f"{path} has no backup (no file {path.name}.bak-* beside it)"
        if absent is not None:
            message = f"no recipe has been written that could be taken back: {absent} is not there, and {message}"
        raise ApplyRefused(message, "no_backup")
    if name is None:
        return found[0]
    for backup in found:
        if backup.name == name:
            return backup
    known = ", ".join(backup.name for backup in found[:5])
    message = f"{name[:100]!r} is no backup of {path}: the newest are {known}"
    raise ApplyRefused(message, "no_backup")
