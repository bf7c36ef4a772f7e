"""The wall clock and this machine's time zone. The agent writes times down in one form: UTC, ISO 8601, `Z`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo


def utc_now() -> str:
    """Now, to the millisecond, as `2026-01-31T12:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LocalZone(tzinfo):
    """The zone of this machine, with all its clock changes, as the C library knows it.

    It follows a machine that is taken to another zone, at the next `reread`.
    """

    def reread(self) -> None:
        """See a zone that was changed under a running agent."""
        time.tzset()

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """The offset at a local time; `fold` tells the two passes of a repeated hour apart."""
        if moment is None:
            return None
        seconds = moment.replace(
            tzinfo=None
        ).timestamp()  # the standard library's own rule for folds and gaps
        return moment.replace(tzinfo=UTC) - datetime.fromtimestamp(seconds, UTC)

    def dst(self, moment: datetime | None) -> timedelta | None:  # noqa: ARG002 - as tzinfo has it
        """Not told."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """The abbreviation in use at a local time, such as `CET`."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """Local time of a moment given in UTC."""
        local = datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp())  # noqa: DTZ006 - local is what is asked
        return local.replace(microsecond=moment.microsecond, tzinfo=self)
