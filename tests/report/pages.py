"""Pages to look at: results of every ending, with trials as the agent gives them, and a strict reader of HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from autotuned.report.page import render
from tests.support.documents import names, stored

VOID = {"meta", "link", "br"}
HOSTILE = (
    "acme/\"><script src=//evil.example/x></script><img src=x onerror=alert(1)>'&\u202e\x00-7B"
    "</title></style></svg>{{ 7 * 7 }}{% raw %}"
)


def trials(document: dict[str, Any]) -> Any:
    """Trials that fit a document: a probe of each candidate that was tried, and the cells."""
    spent = dict.fromkeys(("pause_ms", "prewarm_ms", "load_ms", "warm_ms", "measure_ms", "stop_ms"))
    common = {
        "started_at": document["started_at"],
        "ended_at": document["ended_at"] or "2026-11-24T20:55:00.000Z",
        "spent": {**spent, "prewarm_ms": 4.0, "load_ms": 310.0, "stop_ms": 12.5},
        "load_ms": 320.0,
        "peak_rss_bytes": 2**30,
        "samples": [],
    }
    answer = document["recommendation"]
    tried = [entry["model"] for entry in document["infeasible"]]
    tried += [answer["model"]] if answer else []
    probes = [
        {
            "stage": 1,
            "model": model,
            "knobs": None,
            "tps_median": 9.5,
            "ttft_p95_ms": 80.0,
            **common,
        }
        for model in tried
    ]
    cells = [{"stage": 2, "model": tried[-1], **common, **cell} for cell in document["stage2"]]
    return [*probes, *cells]


def pages() -> dict[str, str]:
    """Every kept result as a page, with and without its trials' times, and two that were never written."""
    documents = {name: stored(name) for name in names()}
    made = {name: render(document, trials(document)) for name, document in documents.items()}
    made["ok, of a version that kept no times"] = render(documents["v1-ok"], [])
    made["running, with cells"] = render(running(), trials(running()))
    made["hostile"] = render(hostile(), trials(hostile()))
    made["calibrated"] = render(calibrated(), trials(calibrated()))
    made["long"] = render(long(), trials(long()))
    return made


def calibrated() -> Any:
    """A run whose chosen model was calibrated on both axes."""
    document = stored("v1-ok")
    shown: dict[str, Any] = {"passes": True, "ttft_p95_ms": 900.0, "tps": 40.0, "reason": None}
    missed = {
        "passes": False,
        "ttft_p95_ms": None,
        "tps": None,
        "reason": "no token within 4000 ms",
    }
    contexts = [(4000, shown), (8000, {**shown, "ttft_p95_ms": 3200.0}), (16_000, missed)]
    streams = [(1, shown), (2, {**shown, "tps": 71.0}), (4, {**shown, "tps": 75.0}), (8, missed)]
    document["calibration"] = {
        "context": {
            "answer": 8000,
            "ceiling_ms": 4000,
            "bound": 32_000,
            "quantum": 1000,
            "points": [{"context": value, **point} for value, point in contexts],
        },
        "concurrency": {
            "largest": 4,
            "recommended": 2,
            "ceiling_ms": 4000,
            "points": [{"concurrency": value, **point} for value, point in streams],
        },
    }
    document["recommendation"]["knobs"]["max_context_override"] = 8000
    return document


def running() -> Any:
    """A run that has measured cells, one of them failed, and goes on."""
    document = stored("v1-ok")
    document["stage2"][1] |= {"fits": False, "reason": "1 of 3 requests failed: HTTP 500"}
    return {
        **document,
        "state": "running",
        "exit_reason": "interrupted",
        "ended_at": None,
        "recommendation": None,
        "recipe_hash": None,
    }


def hostile() -> Any:
    """A result in which every text is somebody's attack."""

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poisoned(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [poisoned(entry) for entry in value]
        kept = ("started_at", "ended_at", "state", "exit_reason")
        return HOSTILE if isinstance(value, str) and key not in kept else value

    document = poisoned(stored("v1-ok"))
    document["warnings"] = [HOSTILE]
    return document


def long() -> Any:
    """Names without a single break, many cells, many requests."""
    document = stored("v1-ok")
    name = "a" * 200
    document["recommendation"] |= {"model": f"acme/{name}", "serve_command": "x" * 300}
    document["inputs"]["candidate_models"] = [f"{name}{index}" for index in range(12)]
    document["alternates"] = document["inputs"]["candidate_models"][5:]
    document["infeasible"] = [
        {"model": f"{name}{index}", "rank": index + 1, "reason": "z" * 480} for index in range(4)
    ]
    cell = document["stage2"][0]
    document["stage2"] = [
        {
            **cell,
            "knobs": {**cell["knobs"], "max_context_override": 2000 * index},
            "samples": cell["samples"] * 5,
        }
        for index in range(1, 17)
    ]
    return document


class Reader(HTMLParser):
    """Reads a page, and refuses what is not closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == [], "left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"{tag}: an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        message = f"<{tag}/> closes itself"
        raise AssertionError(message)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """The attributes of every element of these names."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    def words(self, tag: str) -> list[str]:
        """The texts that stand directly in elements of this name."""
        return [data for within, data in self.texts if within == tag]
