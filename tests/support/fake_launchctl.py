"""A scripted `launchctl`: the command line of a small launchd of one home, as wilful as the real one.

Copied into a home's bin/ under that name. `launchctl-plan.json` beside it says how it misbehaves,
`launchctl-state.json` (under a flock) is what it has loaded, `launchctl-calls.jsonl` what it was asked.
Standard library only; knows nothing of the agent.

The plan: `domains` that exist (["gui", "user"]), `absent` (code for the others, 125), `dying_s` (a booted out job
stays SIGTERMed at least so long, 0.2), `exit_timeout_s` (SIGKILL after that, 5), `already` (code of a bootstrap
of what is loaded, 37), `text` (plain | localised | garbage), `macos` (15: `bootout --wait` is a usage
error), `revive_after_s` (a watchdog bootstraps so long after each bootout), `revive_at_call` (it does so at the
n-th call after a bootout), `revivals` (how often at most), `keep_alive` (a job whose process has ended is started again,
`throttle_s` after its last start, 10), and `faults`: a list of {id, verb, code, hang_s,
act, outcome, for_s, skip, times}. A fault answers `code` after `hang_s`, doing its work only if `act`; the outcomes
`nothing` answers code 0 and does not act, `not_running` and `penalty` (for `for_s`) load the job with code 0 but start nothing (`for_ever`: nor does kickstart).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from typing import Any

from tests.support.fake_launchd import (
    HERE,
    UID,
    Refused,
    alive,
    bootout,
    bootstrap,
    check_domain,
    job_of,
    kickstart,
    plan,
    reboot,
    send,
    settle,
    state,
    state_word,
)

TEXTS = {
    1: "Operation not permitted",
    3: "No such process",
    5: "Input/output error",
    36: "Operation now in progress",
    37: "Operation already in progress",
    112: "Could not find specified domain",
    113: "Could not find specified service",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
    161: "Service cannot load due to background task policy",
}
VERBS = {"bootstrap": "Bootstrap failed", "bootout": "Boot-out failed"}


def describe(target: str, job: dict[str, Any], planned: dict[str, Any]) -> str:
    """What `print` says of a job."""
    if planned["text"] == "garbage":
        return "\x00\udcff{{{ = = = }\npid = banana\nstate\n"
    words = {"state": "state", "pid": "pid", "path": "path"}
    if planned["text"] == "localised":
        words = {"state": "Status", "pid": "PID-Nummer", "path": "Pfad"}
    lines = [
        f"{target} = {{",
        f"\tactive count = {int(alive(job))}",
        f"\t{words['path']} = {job['plist']}",
        "\ttype = LaunchAgent",
        f"\t{words['state']} = {state_word(job)}",
        "",
        f"\tprogram = {job['program']}",
        "\targuments = {",
        *(f"\t\t{argument}" for argument in job["arguments"]),
        "\t}",
        "",
        f"\tworking directory = {job['cwd']}",
        "\tdefault environment = {",
        "\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin",
        "\t}",
        "\tenvironment = {",
        *(f"\t\t{name} => {value}" for name, value in job["environment"].items()),
        "\t}",
        "",
        f"\tdomain = {target.rpartition('/')[0]} [100005]",
        "\tminimum runtime = 10",
        f"\texit timeout = {planned['exit_timeout_s']:g}",
        f"\truns = {job['runs']}",
        *([f"\t{words['pid']} = {job['pid']}"] if alive(job) else []),
        f"\tlast exit code = {'(never exited)' if alive(job) else 0}",
        "\tspawn type = daemon (3)",
        "\tproperties = keepalive | runatload | inferred program",
        "}",
    ]
    return "\n".join(lines)


def act(words: list[str], fault: dict[str, Any]) -> str:
    """Do what was asked; what stdout says. Raises Refused."""
    planned = plan()
    arguments = [word for word in words[1:] if not word.startswith("-")]
    flags = [word for word in words[1:] if word.startswith("-")]
    with state() as known:
        settle(known, planned)
        if words[0] in ("print", "print-disabled", "list", "managername", "manageruid", "error"):
            return tell(words[0], arguments, known, planned)
        change(words[0], arguments, flags, known, planned, fault)
    return ""


def listing(labels: list[str], known: dict[str, Any], planned: dict[str, Any]) -> str:
    """What `list` says of one job, or of all."""
    if not labels:
        jobs = known["jobs"].items()
        rows = [f"{job['pid'] if alive(job) else '-'}\t0\t{n.split('/')[-1]}" for n, job in jobs]
        return "\n".join(["PID\tStatus\tLabel", *rows])
    for domain in planned["domains"]:
        job = known["jobs"].get(f"{domain}/{UID}/{labels[0]}")
        if job is not None:
            pid = f'\t"PID" = {job["pid"]};\n' if alive(job) else ""
            return f'{{\n\t"Label" = "{labels[0]}";\n{pid}\t"LastExitStatus" = 0;\n}};'
    raise Refused(113, f'Could not find service "{labels[0]}" in domain for port')


def tell(verb: str, arguments: list[str], known: dict[str, Any], planned: dict[str, Any]) -> str:
    """The commands that only ask."""
    match verb, arguments:
        case "print", [target] if target.count("/") == 2 or target.startswith("system/"):
            return describe(target, job_of(known, planned, target), planned)
        case "print", [domain]:
            check_domain(planned, domain)
            labels = [name for name in known["jobs"] if name.startswith(f"{domain}/")]
            return "\n".join([f"{domain} = {{", *(f"\t{name}" for name in labels), "}"])
        case "print-disabled", [domain]:
            overrides = (
                f'\t"{target.rpartition("/")[2]}" => {"disabled" if off else "enabled"}'
                for target, off in known["disabled"].items()
                if target.startswith(f"{domain}/")
            )
            return "\n".join(["disabled services = {", *overrides, "}"])
        case "list", labels:
            return listing(labels, known, planned)
        case "managername", []:
            return "Aqua" if "gui" in planned["domains"] else "Background"
        case "manageruid", []:
            return str(UID)
        case "error", [code]:
            return f"{code}: {TEXTS.get(int(code), 'Unknown error')}"
        case _:
            raise Refused(64, f"Unrecognized subcommand: {verb}")


def change(
    verb: str,
    arguments: list[str],
    flags: list[str],
    known: dict[str, Any],
    planned: dict[str, Any],
    fault: dict[str, Any],
) -> None:
    """The commands that do something; the last ones are the tests' own."""
    match verb, arguments:
        case (("bootstrap" | "watchdog-bootstrap"), [domain, plist]):
            check_domain(planned, domain)
            bootstrap(known, planned, domain, plist, fault)
        case "bootout", [_] if "--wait" in flags and planned["macos"] < 26:
            raise Refused(64, "Unrecognized option: --wait")
        case "bootout", [target]:
            bootout(known, planned, target)
        case "kickstart", [target]:
            kickstart(job_of(known, planned, target), restart="-k" in flags)
        case "kill", [name, target]:
            number = int(name) if name.isdigit() else signal.Signals[f"SIG{name[-4:]}"]
            send(job_of(known, planned, target), number)
        case (("enable" | "disable"), [target]):
            known["disabled"][target] = verb == "disable"
        case "reboot-machine", []:
            reboot(known, planned)
        case "unload-everything", []:
            for job in known["jobs"].values():
                send(job, signal.SIGKILL)
            known |= {"jobs": {}, "revive": None}
        case _:
            raise Refused(64, f"Unrecognized subcommand: {verb}")


def fault_for(verb: str) -> dict[str, Any]:
    """The first planned fault for this verb that has uses left; it is used up by this."""
    with state() as known:
        for fault in plan()["faults"]:
            if fault["verb"] != verb:
                continue
            used = known["used"].get(fault["id"], 0)
            if used >= fault.get("skip", 0) + fault.get("times", 1_000_000):
                continue
            known["used"][fault["id"]] = used + 1
            if used >= fault.get("skip", 0):
                found: dict[str, Any] = fault
                return found
    return {}


def main() -> None:
    """One call, written down with its code."""
    for limited in (
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NOFILE,
    ):  # the real launchd is no child of ours
        most = resource.getrlimit(limited)[1]
        resource.setrlimit(limited, (most, most))
    words = sys.argv[1:] or ["help"]
    began = time.time()
    note(call=words, begins=True)
    fault = fault_for(words[0])
    time.sleep(fault.get("hang_s", 0))
    code, said = fault.get("code", 0), ""
    try:
        if fault.get("outcome") != "nothing" and (code == 0 or fault.get("act")):
            said = act(words, fault)
        if code:
            raise Refused(code)
    except Refused as refused:
        code = refused.code
        text = refused.text or f"{code}: {TEXTS.get(code, 'Unknown error')}"
        prefix = VERBS.get(words[0])
        sys.stderr.write(f"{prefix}: {text}\n" if prefix and code != 64 else f"{text}\n")
    if said:
        sys.stdout.buffer.write(said.encode("utf-8", "surrogateescape") + b"\n")
        sys.stdout.flush()
    note(call=words, code=code, took_s=round(time.time() - began, 3))
    sys.exit(code)


def note(**entry: Any) -> None:
    """Append one line to the log of calls, in one write."""
    with (HERE / "launchctl-calls.jsonl").open("a") as file:
        file.write(json.dumps({"at": time.time(), "pid": os.getpid(), **entry}) + "\n")


if __name__ == "__main__":
    main()
