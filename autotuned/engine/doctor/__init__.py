"""`doctor`: everything that a run needs, looked at in one table, each with what would mend it.

The checks run side by side, each with a deadline: one that hangs is told as such and stops no other.
They change nothing. A level `error` is what would stop a run or the agent, `warning` what makes it
worse, `info` what is merely good to know.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping

import structlog

from autotuned.documents.doctor import CheckDocument, DoctorDocument
from autotuned.engine.doctor import agent, machine, serving
from autotuned.engine.doctor.check import Check, CheckContext, Finding, Level, doubt

__all__ = ["CHECKS", "CheckContext", "examine"]

DEADLINE_S = 25.0
"""A serving program may take 20 s to tell its version; everything else is far quicker."""

CHECKS: Mapping[str, Check] = {
    check.__name__.replace("_", "-"): check
    for check in (*serving.CHECKS, *machine.CHECKS, *agent.CHECKS)
}
"""By name, in the order in which they are told."""

log = structlog.get_logger(__name__)


async def examine(context: CheckContext) -> DoctorDocument:
    """`{ok, checks: [{name, ok, level, detail, remedy}]}`; `ok`: nothing is broken. Never raises."""
    found = await asyncio.gather(
        *(_bounded(name, check, context) for name, check in CHECKS.items())
    )
    checks: list[CheckDocument] = [
        {
            "name": name,
            "ok": finding.level is not Level.ERROR,
            "level": finding.level.value,
            "detail": finding.detail,
            "remedy": finding.remedy,
        }
        for name, finding in zip(CHECKS, found, strict=True)
    ]
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


async def _bounded(name: str, check: Check, context: CheckContext) -> Finding:
    try:
        async with asyncio.timeout(DEADLINE_S):
            blocks = not inspect.iscoroutinefunction(check)
            found = await asyncio.to_thread(check, context) if blocks else check(context)
            return found if isinstance(found, Finding) else await found
    except TimeoutError:
        return doubt(
            f"no answer within {DEADLINE_S:g} s", "try again; the machine may be under load"
        )
    except Exception as error:  # a bug in one check must not cost the others
        log.exception("check failed", check=name)
        return doubt(f"could not be checked: {type(error).__name__}", "see autotunectl logs")
