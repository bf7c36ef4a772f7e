"""The launchd behind the scripted `launchctl`: what is loaded, and what time and signals do to it.

Jobs are real processes in sessions of their own. Nothing runs between two calls: what time has
changed (a job that died, a back-off that is over) is worked out at the next one.
Standard library only; knows nothing of the agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[0]).resolve().parent  # of the launchctl that is being run
AGENTS = Path(os.environ.get("HOME", "/")) / "Library" / "LaunchAgents"
UID = os.getuid()
DEFAULTS: dict[str, Any] = {
    "domains": ["gui", "user"],
    "absent": 125,
    "dying_s": 0.2,
    "exit_timeout_s": 5.0,
    "already": 37,
    "text": "plain",
    "macos": 26,
    "revivals": 1_000_000,
    "keep_alive": False,
    "throttle_s": 10.0,
    "faults": [],
}


class Refused(Exception):
    """The call ends with this code."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(code, text)
        self.code, self.text = code, text


def plan() -> dict[str, Any]:
    """What the test has planned, completed with the defaults."""
    try:
        return {**DEFAULTS, **json.loads((HERE / "launchctl-plan.json").read_text())}
    except FileNotFoundError:
        return DEFAULTS


@contextlib.contextmanager
def state() -> Iterator[dict[str, Any]]:
    """What is loaded, held alone; written back whole, even when the call is refused."""
    path = HERE / "launchctl-state.json"
    with (HERE / "launchctl-state.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, Any] = {
            "jobs": {},
            "disabled": {},
            "used": {},
            "revive": None,
            "revived": 0,
        }
        with contextlib.suppress(FileNotFoundError):
            known |= json.loads(path.read_text())
        try:
            yield known
        finally:
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(known, indent=1))
            fresh.replace(path)


# --- jobs and their processes ------------------------------------------------------------------------


def born(pid: int | None) -> str | None:
    """When this process started, in whatever form; None where none lives (a zombie does not)."""
    if pid is None:
        return None
    if Path("/proc/self").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    done = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if not done.stdout.strip() or done.stdout.startswith("Z") else done.stdout[5:]


def alive(job: dict[str, Any]) -> bool:
    """The job's own process lives, and is no other one that has its pid by now."""
    return job["pid"] is not None and born(job["pid"]) == job["born"]


def spawn(job: dict[str, Any]) -> None:
    """Really start the job's program, in a session of its own."""
    output = job["stdout"] or os.devnull
    with open(output, "ab") as sink:  # noqa: PTH123
        environ = {"PATH": os.defpath, "HOME": os.environ["HOME"], **job["environment"]}
        process = subprocess.Popen(
            job["arguments"],
            env=environ,
            cwd=job["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    job["spawned"] = time.time()
    job |= {"pid": process.pid, "born": born(process.pid), "runs": job["runs"] + 1, "due": None}


def send(job: dict[str, Any], number: int) -> None:
    """Signal the job's process, if it lives."""
    if alive(job):
        with contextlib.suppress(ProcessLookupError):
            os.kill(job["pid"], number)


def settle(known: dict[str, Any], planned: dict[str, Any]) -> None:
    """Bring what is loaded up to date with what time and the processes have done."""
    now = time.time()
    for target, job in list(known["jobs"].items()):
        if job["dying_since"] is not None:
            if now > job["dying_since"] + planned["exit_timeout_s"]:
                send(job, signal.SIGKILL)
            if not alive(job) and now > job["dying_since"] + planned["dying_s"]:
                del known["jobs"][target]
        elif job["due"] is not None:
            if now >= job["due"]:
                spawn(job)
        elif planned["keep_alive"] and job["spawned"] and not alive(job):
            job["due"] = max(now, job["spawned"] + planned["throttle_s"])
    revive(known, planned, now)


def revive(known: dict[str, Any], planned: dict[str, Any], now: float) -> None:
    """The provider's own watchdog, after so many calls."""
    pending = known["revive"]
    if pending is None or known["revived"] >= planned["revivals"]:
        return
    pending["calls"] += 1
    if "revive_at_call" in planned and pending["calls"] >= planned["revive_at_call"]:
        with contextlib.suppress(Refused):
            bootstrap(known, planned, pending["domain"], pending["plist"], {})
            known["revive"] = None
            known["revived"] += 1


def state_word(job: dict[str, Any]) -> str:
    """The state as `print` names it."""
    if job["dying_since"] is not None:
        return "SIGTERMed"
    if alive(job):
        return "running"
    return "spawn scheduled" if job["due"] is not None else "not running"


# --- what changes it ---------------------------------------------------------------------------------


def bootstrap(
    known: dict[str, Any], planned: dict[str, Any], domain: str, plist: str, fault: dict[str, Any]
) -> None:
    """Load a definition; start it when it says RunAtLoad or KeepAlive."""
    import plistlib

    try:
        with open(plist, "rb") as file:  # noqa: PTH123
            definition = plistlib.load(file)
        label = definition["Label"]
    except Exception:  # noqa: BLE001 - missing or no plist: expat's errors have no common class
        raise Refused(5) from None
    target = f"{domain}/{label}"
    if known["disabled"].get(target):
        raise Refused(119)
    if target in known["jobs"]:
        dying = known["jobs"][target]["dying_since"] is not None
        raise Refused(5 if dying else planned["already"])
    arguments = definition.get("ProgramArguments") or [definition["Program"]]
    job = known["jobs"][target] = {
        "plist": plist,
        "program": definition.get("Program", arguments[0]),
        "arguments": arguments,
        "environment": definition.get("EnvironmentVariables", {}),
        "cwd": definition.get("WorkingDirectory", "/"),
        "stdout": definition.get("StandardOutPath") or definition.get("StandardErrorPath"),
        "pid": None,
        "born": None,
        "runs": 0,
        "due": None,
        "dying_since": None,
        "dead": False,
        "spawned": None,
    }
    if fault.get("outcome") == "not_running":
        job["dead"] = fault.get("for_ever", False)
    elif fault.get("outcome") == "penalty":
        job["due"] = time.time() + fault["for_s"]
    elif definition.get("RunAtLoad") or definition.get("KeepAlive"):
        spawn(job)


def bootout(known: dict[str, Any], planned: dict[str, Any], target: str) -> None:
    """SIGTERM, and forget the definition once the process is gone: later."""
    job = job_of(known, planned, target, missing=3)
    if job["dying_since"] is not None:
        raise Refused(36)
    job["dying_since"] = time.time()
    send(job, signal.SIGTERM)
    domain = target.rpartition("/")[0]
    known["revive"] = {"domain": domain, "plist": job["plist"], "calls": 0}
    if "revive_after_s" in planned and known["revived"] < planned["revivals"]:
        known["revived"] += 1
        script = (
            "import subprocess, sys, time\n"
            "time.sleep(float(sys.argv[2]))\n"
            "for _ in range(100):\n"
            "    if subprocess.run(sys.argv[1:2] + sys.argv[3:]).returncode != 5: break\n"
            "    time.sleep(0.05)\n"
        )
        program = [sys.executable, "-S", "-c", script, str(HERE / "launchctl")]
        subprocess.Popen(
            [*program, str(planned["revive_after_s"]), "watchdog-bootstrap", domain, job["plist"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def kickstart(job: dict[str, Any], *, restart: bool) -> None:
    """Run it now; a job in the penalty box stays there."""
    if job["dying_since"] is not None:
        raise Refused(36)
    if restart:
        send(job, signal.SIGKILL)
        while alive(job):
            time.sleep(0.005)
    if job["due"] is None and not job["dead"] and not alive(job):
        spawn(job)


def job_of(
    known: dict[str, Any], planned: dict[str, Any], target: str, missing: int = 113
) -> dict[str, Any]:
    """The loaded job that `domain/label` names."""
    domain, _, label = target.rpartition("/")
    check_domain(planned, domain)
    if target not in known["jobs"]:
        kind, _, uid = domain.partition("/")
        where = f"for user {kind}: {uid}" if uid else kind
        text = f'Bad request.\nCould not find service "{label}" in domain {where}'
        raise Refused(missing, text if missing == 113 else "")
    found: dict[str, Any] = known["jobs"][target]
    return found


def check_domain(planned: dict[str, Any], domain: str) -> None:
    """gui and user of this user, and system; others are not there."""
    kind, _, uid = domain.partition("/")
    if domain != "system" and (kind not in planned["domains"] or uid != str(UID)):
        raise Refused(planned["absent"])


def reboot(known: dict[str, Any], planned: dict[str, Any]) -> None:
    """Everything dies, the boot id changes, and the user logs in: agents in gui are loaded again."""
    for job in known["jobs"].values():
        send(job, signal.SIGKILL)
    known["jobs"], known["revive"] = {}, None
    (HERE / "boot-id").write_text(f"{uuid.uuid4()}\n")
    for plist in sorted(AGENTS.glob("*.plist")):
        with contextlib.suppress(Refused):
            bootstrap(known, planned, f"gui/{UID}", str(plist), {})
