"""What went wrong with the hub, in our two classes: exceptions of the library, the network and the disk.

Part of the process that speaks to the hub. Reasons are made here, from kinds and codes: the library's
own texts may hold addresses and are long.
"""

from __future__ import annotations

import errno
import re

import httpx2
from huggingface_hub import errors as hub_errors

from autotuned.weights.hub import HubFault

LONGEST_WAIT_S = 30.0
"""A hub that asks to be left alone for longer is not waited for."""
RETRIED = (408, 429, 500, 502, 503, 504)
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Fault(HubFault):
    """As it is told to the agent. `retry`: a fault of the network, worth another try after `wait_s`."""

    def __init__(
        self,
        reason: str,
        *,
        integrity: bool = False,
        retry: bool = False,
        wait_s: float = 0.0,
        unreachable: bool = False,
    ) -> None:
        super().__init__(reason, integrity=integrity, unreachable=unreachable)
        self.retry, self.wait_s = retry, wait_s


def translated(error: Exception) -> Fault:
    """The fault behind an exception of the library, the network or the disk."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, hub_errors.HfHubHTTPError):
        return _answered(error)
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        return _of_network(error)
    if isinstance(error, hub_errors.HFValidationError):
        return Fault("is not the name of a repository: write OWNER/NAME as the hub does")
    if isinstance(error, OSError):
        return on_disk(error)
    return Fault(f"the hub's answer makes no sense: {type(error).__name__}: {_line(error)}")


def _of_network(error: Exception) -> Fault:
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return Fault(f"HF_ENDPOINT cannot be used: {_line(error)}")
    if isinstance(error, httpx2.TimeoutException):
        return Fault("time-out of the network", retry=True)
    if isinstance(error, httpx2.ConnectError):
        return Fault(f"no network: {_line(error)}", retry=True, unreachable=True)
    return Fault(f"interrupted: {_line(error) or type(error).__name__}", retry=True)


def _answered(error: hub_errors.HfHubHTTPError) -> Fault:
    status = error.response.status_code
    if isinstance(error, hub_errors.GatedRepoError):
        return Fault(f"gated (HTTP {status}): accept its terms on the hub, and set HF_TOKEN")
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return Fault(f"no such revision (HTTP {status})")
    if isinstance(error, hub_errors.RemoteEntryNotFoundError):
        return Fault(f"the hub does not have a file that it lists (HTTP {status})")
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return Fault(
            f"no such repository, or a private one that needs HF_TOKEN (HTTP {status}): "
            "look its name up on the hub"
        )
    if status in (401, 403):
        return Fault(f"no permission (HTTP {status}): is HF_TOKEN right?")
    if status not in RETRIED:
        return Fault(f"HTTP {status}")
    asked = error.response.headers.get("Retry-After", "")
    wait_s = float(asked) if re.fullmatch(r"\d{1,9}", asked) else 0.0
    if wait_s > LONGEST_WAIT_S:
        return Fault(f"HTTP {status}: the hub asks to wait {wait_s:.0f} s")
    return Fault(f"HTTP {status}", retry=True, wait_s=wait_s)


def on_disk(error: OSError) -> Fault:
    """The fault behind an error of the file system."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno in FULL:
        return Fault(f"disk full{where}")
    if error.errno in FORBIDDEN:
        return Fault(f"no permission to write{where}")
    return Fault(f"{error.strerror or error}{where}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
