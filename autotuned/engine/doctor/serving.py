"""Checks of what serves: the program, the weights' cache, the disk, the port, the provider's configuration."""

from __future__ import annotations

import asyncio
import importlib.util
import shlex
import shutil
import tempfile

from autotuned.core.config import policy, reader
from autotuned.core.request import TuneRequest
from autotuned.engine.doctor.check import Check, CheckContext, Finding, broken, doubt, fine
from autotuned.errors import ProviderMissing
from autotuned.host.managers.systemd import command
from autotuned.providers.binary import install_extra
from autotuned.shared.files import nearest_there
from autotuned.shared.text import service_name
from autotuned.weights.cache import hub_cache, repository_folder

GB = 2**30
LEAST_FREE = 2 * GB
"""Below this even the database, the logs and a small model are at risk."""


async def provider(context: CheckContext) -> Finding:
    """The serving program is there, answers, and knows the flags that a candidate needs."""
    if context.active_run is not None:  # to start it now would show in what is being measured
        return fine(f"in use by run {context.active_run}")
    try:
        binary = await context.choose(context.settings.provider.kind).locate()
    except ProviderMissing as error:
        return broken(
            error.message, "install the program, or name it in autotuned.toml: [provider] binary"
        )
    return fine(f"{binary.command[0]}, version {binary.version}")


async def extras(context: CheckContext) -> Finding:
    """Which servers can come out of our own packages."""
    wheels = {"llama": "xllamacpp", "mlx": "mlx_lm"}
    found = [name for name, module in wheels.items() if importlib.util.find_spec(module)]
    wanted = {"llama-server": "llama", "mlx-lm": "mlx"}.get(context.settings.provider.kind)
    told = f"installed: {', '.join(found) or 'none'}"
    if wanted is None or wanted in found:
        return fine(told)
    return fine(
        f"{told}; {wanted} is needed where no such server is installed",
        install_extra(wanted),
    )


def weights_cache(context: CheckContext) -> Finding:
    """The agent itself (its permissions differ from a terminal's) can read and write the cache of weights."""
    folder = hub_cache(context.environ)
    remedy = f"see its owner and mode: ls -ld '{folder}'; or name another one with HF_HUB_CACHE"
    existing = nearest_there(folder)
    try:
        if not existing.is_dir():
            return broken(f"{existing} is no folder", remedy)
        count = sum(entry.name.startswith("models--") for entry in existing.iterdir())
        with tempfile.TemporaryFile(dir=existing, prefix=".autotuned-"):
            pass
    except PermissionError:
        return broken(f"{existing} may not be read and written by this user", remedy)
    except OSError as error:
        return broken(f"{existing}: {error.strerror}", remedy)
    return fine(f"{folder}, {count if existing == folder else 0} models")


def disk(context: CheckContext) -> Finding:
    """Room for the candidates of the default list that are not here yet."""
    folder = hub_cache(context.environ)
    existing = nearest_there(folder)
    free = shutil.disk_usage(existing).free
    told = f"{free / GB:.1f} GB free for weights in {existing}"
    remedy = f"free some space, or delete models of {folder} that you do not use"
    if free < LEAST_FREE:
        return broken(told, remedy)
    try:
        catalogue = context.choose(context.settings.provider.kind).catalogue
    except ProviderMissing:
        return fine(told)
    missing = [
        entry
        for entry in catalogue
        if not repository_folder(folder, entry.model.partition(":")[0]).is_dir()
    ]
    largest = max(missing, key=lambda entry: entry.weights_bytes, default=None)
    if largest is not None and free < largest.weights_bytes + LEAST_FREE:
        need = f"{largest.model} needs about {largest.weights_bytes / GB:.0f} GB"
        return doubt(f"{told}; {need}", f"{remedy}; or keep it out with --max-model-size")
    return fine(told)


async def port(context: CheckContext) -> Finding:
    """The candidates' port is free, or our own candidate has it."""
    number = TuneRequest().port
    # The next run is likely to be asked for in the same way as the newest.
    for row in await context.records.recent(1, None):
        asked = (await context.records.details(row.run_id)).get("request", {}).get("port")
        number = asked if isinstance(asked, int) else number
    if context.active_run is not None:
        return fine(f"{number} is for the candidates of run {context.active_run}")
    holder = await asyncio.to_thread(context.ports.holder, number)
    if holder is None:
        return fine(f"{number} is free for candidates")
    who = f"{holder.name or 'an unknown program'}" + (f" (pid {holder.pid})" if holder.pid else "")
    return broken(
        f"{number} is held by {who}", "stop that program, or start runs with another --port"
    )


def provider_config(context: CheckContext) -> Finding:
    """The provider's configuration can be read and changed; what it says is told to nobody."""
    path = context.settings.provider_config
    try:
        text = path.read_bytes().decode("utf-8")
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return fine(f"there is none yet at {path}; apply would write it")
    except UnicodeDecodeError:
        return broken(f"{path} is not UTF-8 text", "put a backup back: autotunectl revert")
    except OSError as error:
        return broken(f"{path}: {error.strerror}", f"see its owner and mode: ls -l '{path}'")
    file = reader.read(text.removeprefix(reader.BOM))
    if isinstance(file, reader.Refused):
        return broken(
            f"{path} {file.reason}", "correct it, or put a backup back: autotunectl revert"
        )
    if mode & 0o077:
        return doubt(
            f"{path} can be read by others (mode {mode:04o}); it may hold a token",
            f"chmod 600 '{path}'",
        )
    return fine(f"{path} is readable")


def config_pins(context: CheckContext) -> Finding:
    """Keys of the configuration that keep the provider on another model than `model` names."""
    try:
        text = context.settings.provider_config.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return fine("no configuration to look at")
    file = reader.read(text.removeprefix(reader.BOM))
    if isinstance(file, reader.Refused) or file.named("model") is None:
        return fine("the configuration names no model")
    found = policy.pins(text, str(file.shown("model")))
    if found:
        return doubt(
            f"beside model the configuration also says {', '.join(found)}",
            "after an apply, see that these keys fit the new model; they are not ours to change",
        )
    return fine("no key of the configuration pins another model")


async def live_provider(context: CheckContext) -> Finding:
    """A live provider that is loaded also runs."""
    live = context.live
    if live is None:
        return fine("no live provider runs")
    name = service_name(live) or "in a terminal"
    if context.lease is not None:
        return fine(f"{name}: {live['state']} for run {context.lease['run_id']}")
    starts = f", starts so far: {live['runs']}" if live["runs"] is not None else ""
    if live["loaded"] and not live["running"]:
        remedy = f"launchctl kickstart {name}; launchctl print {name}"
        if live["kind"] == "systemd":
            typed = command(str(live["scope"]))
            remedy = f"{typed} start {live['unit']}; {typed} status {live['unit']}"
        return broken(
            f"{name} is loaded and does not run (state: {live['state']}{starts})",
            f"see why in its log, then: {remedy}",
        )
    if live["kind"] == "launchd" and live["loaded"] is False:
        plist = shlex.quote(str(live["plist"]))
        return fine(
            f"{name} is not loaded: it does not serve",
            f"launchctl bootstrap {live['domain']} {plist}",
        )
    answers = "answers" if live["healthy"] else f"does not answer on port {live['port']}"
    since = f" since {live['since']}" if live["since"] else ""
    return fine(f"{name}: {live['state']}{since}{starts}, {answers}")


CHECKS: tuple[Check, ...] = (
    provider,
    extras,
    weights_cache,
    disk,
    port,
    live_provider,
    provider_config,
    config_pins,
)
