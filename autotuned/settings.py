"""Settings: one frozen value from `autotuned.toml` and the environment, and every path the agent uses.

All keys are optional. What cannot be used is refused at start with file, key and rule. Nothing that
comes over the socket can change a value here: programs and files are named by the operator alone.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from autotuned.descriptions import Descriptions
from autotuned.errors import ConfigError, SettingsError, invalid
from autotuned.server_spec import KnobSpec, ServerSpec
from autotuned.shared import wire
from autotuned.shared.paths import with_home


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _without_tilde(path: Path, info: ValidationInfo) -> Path:
    return Path(with_home(str(path), info.context or os.environ))


def _service(text: str) -> str:
    if not re.fullmatch(r"auto|none|(systemd|launchd):[^\s/]+", text):
        message = "should be auto, none, systemd:UNIT or launchd:LABEL"
        raise ValueError(message)
    return text


UserPath = Annotated[Path, AfterValidator(_without_tilde)]
"""A path as the operator writes it: `~` is the home folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Seconds = Annotated[float, Field(gt=0)]


class ProviderSettings(_Section):
    """`[provider]`: which serving program, and how patient to be with it."""

    kind: str = "auto"
    binary: UserPath | None = None
    extra_args: tuple[str, ...] = ()
    ready_timeout_s: Seconds = 300.0
    stop_grace_s: Seconds = 10.0
    max_tokens: Annotated[int, Field(ge=2, le=4096)] = 48
    memory_guard: bool = True


class LiveSettings(_Section):
    """`[live]`: the operator's own server, and who runs it."""

    service: Annotated[str, AfterValidator(_service)] = "auto"
    """Found by its process and asked of launchd and systemd; or the one service that may be stopped; or none."""
    label: Annotated[str, Field(min_length=1)] | None = None
    labels: tuple[str, ...] = ("live.streamvc.macprovider", "live.malibu.provider")
    plist: UserPath | None = None

    @property
    def manager(self) -> tuple[str, str]:
        """`service` as its kind and the unit's full name or the label, empty where none is named."""
        kind, _, name = self.service.partition(":")
        if kind == "systemd" and "." not in name:
            name += ".service"
        return kind, name

    @property
    def known_labels(self) -> tuple[str, ...]:
        """Every label to look for, the one that is named by itself first."""
        kind, name = self.manager
        if kind != "auto":
            return (name,) if kind == "launchd" else ()
        return tuple(dict.fromkeys((*([self.label] if self.label else ()), *self.labels)))


class ApplySettings(_Section):
    """`[apply]`: where a recipe is written, the file, and the model's section or entry in it."""

    kind: Literal["auto", "macprovider", "systemd", "llama-preset", "llama-swap", "script"] = "auto"
    config: UserPath | None = None
    model: Annotated[str, Field(min_length=1)] | None = None


class NotifySettings(_Section):
    """`[notify]`: how the operator learns that a run has ended. `on_finish` is an argv, run without a shell."""

    desktop: bool = False
    on_finish: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class LogSettings(_Section):
    """`[log]`: the agent's own log and the bound of each provider log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
    max_bytes: Annotated[int, Field(ge=64 * 1024)] = 10 * 1024 * 1024


class _File(_Section):
    provider: ProviderSettings = ProviderSettings()
    live: LiveSettings = LiveSettings()
    apply: ApplySettings = ApplySettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    servers: dict[str, ServerSpec] = {}
    """`[servers.NAME]`: serving programs of the operator's own description."""
    candidates: dict[str, tuple[Annotated[str, Field(min_length=1)], ...]] = {}
    """`[candidates]`: the operator's own lists of models."""


class Settings(_File):
    """Everything that is decided before the agent starts."""

    home: Path
    """The folder shared with the provider: `~/.config/macprovider`."""
    socket: Path
    database: Path
    logs: Path

    @property
    def descriptions(self) -> Descriptions:
        """Every server and list of models that a request can name."""
        return Descriptions(self.servers, self.candidates)

    @property
    def run_folder(self) -> Path:
        """Socket, locks and private files of a run; 0700."""
        return self.home / "run"

    @property
    def provider_config(self) -> Path:
        named = self.apply.config if self.apply.kind in ("auto", "macprovider") else None
        return named or self.home / "config.yaml"

    def run_logs(self, run_id: str) -> Path:
        return self.logs / "runs" / run_id


def load(
    environ: Mapping[str, str], *, database: Path | None = None, socket: Path | None = None
) -> Settings:
    """Read `autotuned.toml` and the environment; flags given beside them win.

    Raises SettingsError naming the file, the key and the rule.
    """
    home = Path(wire.config_folder(environ))
    path = home / "autotuned.toml"
    content = _read(path)
    try:
        sections = _File.model_validate(content, context=environ)
        problem = _inconsistent(sections)
    except ValidationError as error:
        sections, problem = _File(), invalid(error, _names(error))
    if problem is not None:
        key, rule = problem.field, problem.rule
        message = f"{path}: {problem.message}"
        raise SettingsError(message, file=str(path), key=key, rule=rule)
    override = environ.get("AUTOTUNED_DB_PATH")
    return Settings(
        home=home,
        socket=socket or Path(wire.socket_path(environ)),
        database=database or Path(with_home(override or f"{home}/autotune.sqlite", environ)),
        logs=Path(wire.log_folder(environ)),
        **{name: getattr(sections, name) for name in _File.model_fields},
    )


def _inconsistent(sections: _File) -> ConfigError | None:
    """What names something that there is not, or takes a name that means something else."""
    named = Descriptions(sections.servers, sections.candidates)
    kind = sections.provider.kind
    if (rule := named.server_rule(kind, "auto")) is not None:
        return ConfigError("provider.kind", kind, rule)
    for name, spec in sections.servers.items():
        if not _NAME.fullmatch(name) or name == "auto":
            rule = "is no name of a server: letters, digits, dots and dashes, and not auto"
            return ConfigError("servers", name, rule)
        if spec.candidates is not None and (rule := named.list_rule(spec.candidates)) is not None:
            return ConfigError(f"servers.{name}.candidates", spec.candidates, rule)
    return None


def _names(error: ValidationError) -> list[str]:
    """The keys that there are where the first problem is, each with its section."""
    section, *inner = (str(part) for part in error.errors(include_url=False)[0]["loc"])
    if section == "servers" and len(inner) > 1:
        of_knob = len(inner) > 3 and inner[1] == "knobs"
        model, place = (KnobSpec, inner[:3]) if of_knob else (ServerSpec, inner[:1])
        return [".".join([section, *place, key]) for key in model.model_fields]
    chosen = getattr(_File(), section, None)
    if not isinstance(chosen, BaseModel):
        return list(_File.model_fields)
    return [f"{section}.{key}" for key in type(chosen).model_fields]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"{path}: cannot be read: {error}"
        raise SettingsError(message, file=str(path), key="", rule=str(error)) from None
