"""The serving programs, and which of them to use: shipped and the operator's own descriptions, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autotuned.core.command_line import Commands
from autotuned.descriptions import SHIPPED, Descriptions
from autotuned.errors import ConfigError, ProviderMissing, nearest
from autotuned.providers import server
from autotuned.providers.binary import install_extra
from autotuned.providers.llama_server import LlamaServer
from autotuned.providers.macprovider import MacProvider
from autotuned.providers.mlx_lm import MlxLm
from autotuned.providers.server import Provider

if TYPE_CHECKING:
    from autotuned.settings import ProviderSettings

HOOKS: Mapping[str, type[Provider]] = {
    "macprovider": MacProvider,
    "llama-server": LlamaServer,
    "mlx-lm": MlxLm,
}
"""Of the shipped descriptions of these, what data cannot say."""


def choose(
    kind: str, settings: ProviderSettings, environ: Mapping[str, str], own: Descriptions = SHIPPED
) -> Provider:
    """The adapter of `kind`; for `auto` the first whose program is installed.

    The settings' binary and arguments belong to the settings' kind: asked for another, they are left
    out. Raises ConfigError for a kind that does not exist, ProviderMissing when nothing is installed.
    """
    if kind == "auto":
        return _installed(settings, environ, own)
    if kind not in own.all():
        rule = f"is none of auto, {', '.join(own.all())}{nearest(kind, own.all())}"
        raise ConfigError("provider", kind, rule)
    return _made(kind, settings, environ, own)


def commands(
    settings: ProviderSettings, environ: Mapping[str, str], own: Descriptions = SHIPPED
) -> Commands:
    """Command words of the live server before any run has said which kind it tunes: of the kind that one would."""
    try:
        return choose(settings.kind, settings, environ, own).commands
    except ProviderMissing:
        return commands_of("macprovider", settings, own)


def commands_of(kind: str, settings: ProviderSettings, own: Descriptions = SHIPPED) -> Commands:
    """Command words of one kind; the settings' binary counts where it is of that kind, or of none."""
    named = settings.binary if _owner(settings, own) in (kind, "auto") else None
    return server.commands(own.all()[kind], named)


def made(
    kind: str,
    binary: Path | None = None,
    extra_args: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
    own: Descriptions = SHIPPED,
) -> Provider:
    """The adapter of one description, with the hook of a shipped one."""
    spec = own.all()[kind]
    adapter = Provider if kind in own.servers else HOOKS.get(kind, Provider)
    entries = own.entries(spec.candidates)
    return adapter(kind, spec, entries, binary, extra_args, environ or {})


def _installed(
    settings: ProviderSettings, environ: Mapping[str, str], own: Descriptions
) -> Provider:
    if settings.binary is not None:
        return _made(_owner(settings, own), settings, environ, own)
    for kind in own.all():
        provider = _made(kind, settings, environ, own)
        if provider.find() is not None:
            return provider
    message = (
        "no serving program is installed: install macprovider, or llama.cpp's llama-server, or run "
        f"{install_extra('llama')} (any machine) or {install_extra('mlx')} (Apple silicon)"
    )
    raise ProviderMissing(message)


def _made(
    kind: str, settings: ProviderSettings, environ: Mapping[str, str], own: Descriptions
) -> Provider:
    ours = settings.binary is None or kind == _owner(settings, own)
    extra = settings.extra_args if ours else ()
    return made(kind, settings.binary if ours else None, extra, environ, own)


def _owner(settings: ProviderSettings, own: Descriptions) -> str:
    """Which kind the settings' binary is: as they say, else by its name, else macprovider."""
    if settings.kind != "auto" or settings.binary is None:
        return settings.kind
    name = settings.binary.name
    kinds = (kind for kind, spec in own.all().items() if server.commands(spec, None)[0][0] == name)
    return next(kinds, "macprovider")
