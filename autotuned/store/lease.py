"""The second copy of the lease's journal: what was drained, for which run, and how it came back.

`run/lease.json` is the one that a restore works from; this one never holds an environment.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3

from autotuned.core import lease as steps
from autotuned.core.lease import Lease
from autotuned.store.database import transaction


def write(db: sqlite3.Connection, lease: Lease) -> None:
    """Write the newest state of a lease; on the disk when this returns."""
    shown = dataclasses.replace(lease, target=steps.without_secrets(lease.target))
    text = json.dumps(steps.document(shown))
    with transaction(db, durable=True):
        db.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
            (lease.lease_id, lease.run_id, lease.state.value, text, lease.updated_at),
        )


def newest(db: sqlite3.Connection) -> Lease | None:
    """The lease that was written last; None when there never was one. Raises ValueError for a damaged row."""
    row = db.execute(
        "SELECT document_json FROM leases ORDER BY updated_at_utc DESC, lease_id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else steps.parse(json.loads(row[0]))
