"""Named points at which a test can make the agent die, hang or fail: `AUTOTUNED_FAILPOINT=name:action[:nth]`.

`kill` is SIGKILL to this process, `hang` is SIGSTOP (until somebody continues or kills it), `error`
is an OSError. `nth` counts from 1. Unset, a point costs one comparison. Standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping

VARIABLE = "AUTOTUNED_FAILPOINT"

POINTS: Mapping[str, str] = {
    "drain.locked": "the lock is ours, nothing is written",
    "drain.intent": "the intent is in lease.json and in the store",
    "drain.armed": "the guardian knows what it would have to undo",
    "drain.begun": "draining is journalled, nothing has been done",
    "drain.asked": "launchctl bootout has returned, or SIGTERM is sent",
    "drain.gone": "the live provider and its ports are gone, which is not journalled yet",
    "drain.done": "drained is journalled",
    "restore.begun": "restoring is journalled, nothing has been done",
    "restore.held": "the restarted foreground process waits for its pid to be journalled",
    "restore.asked": "launchctl bootstrap has returned, or the foreground process may go",
    "restore.verified": "it runs again, which is not journalled yet",
    "restore.restored": "restored is journalled, and the process is watched",
    "restore.died": "its process has ended during its start-up, which is not journalled yet",
    "restore.lived": "it has answered or lived long enough, which is not journalled yet",
    "restore.living": "living is journalled",
    "rollback.begun": "rolling back is journalled, the configuration is the new one",
    "rollback.replaced": "the configuration is the old one, which is not journalled yet",
    "rollback.done": "rolled back is journalled, the provider is not started yet",
    "restore.released": "the release is journalled, the lock is still held",
    "restore.unlocked": "the lock is free, the store does not know yet",
    "recover.begun": "a new agent has found an open lease",
    "recover.done": "that lease is restored, the socket is not open yet",
    "apply.backed_up": "the backup of the configuration is durable, the configuration is the old one",
    "apply.recorded": "the lease tells how to take the change back, the configuration is the old one",
    "apply.replaced": "the configuration is the new one, the store does not know yet",
    "file.written": "an atomic write is complete under its temporary name",
    "file.renamed": "the new file stands under its name, the folder is not synced",
}
"""Every point, and what has just happened there."""

ACTIONS = ("kill", "hang", "error")


class _Armed:
    def __init__(self, text: str) -> None:
        self.name, _, rest = text.partition(":")
        self.action, _, nth = rest.partition(":")
        self.left = int(nth) if nth.isdecimal() else 1
        if self.name not in POINTS or self.action not in ACTIONS or (nth and not nth.isdecimal()):
            message = f"{VARIABLE}={text!r} is not name:action[:nth] with a known name and one of {ACTIONS}"
            raise ValueError(message)


_armed = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def reach(name: str) -> None:
    """Say that this process has come to the point `name`. Raises OSError where a test asked for it."""
    if _armed is None or _armed.name != name:
        return
    _armed.left -= 1
    if _armed.left != 0:
        return
    if _armed.action == "error":
        raise OSError(errno.EIO, f"failpoint {name}")
    os.kill(os.getpid(), signal.SIGKILL if _armed.action == "kill" else signal.SIGSTOP)
