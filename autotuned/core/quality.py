"""Whether a lossy cell still answers as the lossless one does: tasks scored by rules, and a verdict. Pure.

The first feasible lossless cell answers the battery twice: how far its own answers agree is the
yardstick. A lossy cell that would win answers it once. No other model judges anybody.
"""

from __future__ import annotations

import functools
import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final, Literal

from autotuned.core.model import STAGE_CLIMB, Answers, Trial
from autotuned.documents.result import (
    AnswerDocument,
    AnsweredTask,
    AnswersDocument,
    CellQuality,
    QualityDocument,
)
from autotuned.shared.knobs import Knobs

Verdict = Literal["same", "differs", "broken"]
NEEDLES: Final = "needles"
BASELINE_ROUNDS = 2
FEWEST_SOLVED = 4
"""A model that solves fewer tasks without loss cannot show what a lossy knob costs."""
LEVEL = 0.05
FEWEST_LOST = 2
FIRST_WORDS = 16
MAX_TOKENS = 16
STRUCTURED = ("json", "tool call")

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an answer must hold; exactly one is set."""

    number: float | None = None
    words: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    json: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One thing that an answer solves or not; the needles are three tasks of one prompt."""

    kind: str
    name: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and its tasks. `needles`: where in a prompt of the context's length which sentence stands."""

    prompt: str
    tasks: tuple[Task, ...]
    max_tokens: int = MAX_TOKENS
    needles: tuple[tuple[float, str], ...] = ()


@functools.cache
def battery() -> tuple[Question, ...]:
    """The questions, in their order; the long one comes last."""
    text = resources.files("autotuned.core").joinpath("battery.toml").read_text("utf-8")
    data = tomllib.loads(text)
    asked = [
        Question(
            entry["prompt"],
            (Task(entry["class"], entry["name"], _rule(entry)),),
            entry.get("max_tokens", MAX_TOKENS),
        )
        for entry in data["task"]
    ]
    needles = data[NEEDLES]
    tasks = tuple(Task(NEEDLES, each["name"], _rule(each)) for each in needles["needle"])
    places = tuple((each["at"], each["sentence"]) for each in needles["needle"])
    return (*asked, Question(needles["question"], tasks, needles["max_tokens"], places))


def _rule(entry: Mapping[str, Any]) -> Rule:
    words, lines = tuple(entry.get("words", ())), tuple(entry.get("lines", ()))
    return Rule(entry.get("number"), words, lines, entry.get("json"))


def long_prompt(question: Question, haystack: str) -> str:
    """The question behind the haystack, in which its needles stand, each before the paragraph at its place."""
    text = haystack
    for at, sentence in sorted(question.needles, reverse=True):
        place = text.find("\n\n", int(at * len(haystack)))
        place = int(at * len(haystack)) if place < 0 else place
        text = f"{text[:place]}\n\n{sentence}{text[place:]}"
    return text + question.prompt


# --- which cell is asked, and whether it may win ---------------------------------------------------


def is_lossy(knobs: Knobs | None, lossy: Collection[str]) -> bool:
    """Whether these knobs may change answers. `lossy`: names of the knobs that do."""
    return knobs is not None and any(name in lossy for name in knobs.chosen())


def lossless_first(cells: Sequence[Knobs], lossy: Collection[str]) -> tuple[Knobs, ...]:
    """The cells in their order, but with those that can be compared with before those that are."""
    return tuple(sorted(cells, key=lambda knobs: is_lossy(knobs, lossy)))


def baseline(history: Sequence[Trial]) -> Trial | None:
    """The lossless cell that has answered for itself."""
    return next((trial for trial in history if len(trial.answers) == BASELINE_ROUNDS), None)


def rounds(history: Sequence[Trial], trial: Trial, lossy: Collection[str], *, wins: bool) -> int:
    """How often a feasible cell answers the battery. `wins`: it would become the best."""
    if trial.stage != STAGE_CLIMB:
        return 0
    known = baseline(history)
    if not is_lossy(trial.knobs, lossy):
        return BASELINE_ROUNDS if known is None else 0
    return int(known is not None and wins)


def vetoed(history: Sequence[Trial], trial: Trial) -> Trial:
    """The trial, with the reason for which it cannot win where its answers are broken."""
    known = baseline(history)
    if known is None or len(trial.answers) != 1 or len(_firm(known)) < FEWEST_SOLVED:
        return trial
    found = compared(known, trial)
    return replace(trial, vetoed=found["reason"]) if found["verdict"] == "broken" else trial


# --- the verdict -------------------------------------------------------------------------------------


def compared(known: Trial, trial: Trial) -> CellQuality:
    """What a lossy cell's answers are, beside those of the baseline."""
    first, second = (_solved(answers) for answers in known.answers)
    mine = _solved(trial.answers[0])
    firm = _firm(known)
    lost = [task for task in firm if not mine[task]]
    gained = [task for task in mine if mine[task] and not (first[task] or second[task])]
    agreement = max(_agreement(answers, trial.answers[0]) for answers in known.answers)
    verdict: Verdict = "same" if agreement >= _agreement(*known.answers) else "differs"
    reason = None
    if lost:
        verdict = "differs"
        whole = [
            kind for kind in dict.fromkeys(task.kind for task in lost) if _whole(kind, firm, lost)
        ]
        beyond = len(lost) >= FEWEST_LOST and sign_test(len(lost), len(gained)) < LEVEL
        if whole or beyond or len(lost) == len(firm):
            verdict = "broken"
        told = [task for task in lost if not whole or task.kind == whole[0]]
        kinds = {task.kind for task in told}
        noun = "tasks"
        if len(kinds) == 1:
            noun = NEEDLES if NEEDLES in kinds else f"{kinds.pop()} tasks"
        count = len([task for task in firm if noun == "tasks" or task.kind == told[0].kind])
        reason = f"quality: {len(told)} of {count} {noun} lost"
    shaped = [task for task in mine if task.kind in STRUCTURED]
    needles = [task for task in mine if task.kind == NEEDLES]
    return {
        "knobs": {} if trial.knobs is None else trial.knobs.published(),
        "verdict": verdict,
        "reason": reason,
        "solved": sum(mine.values()),
        "needles": sum(mine[task] for task in needles),
        "structured": sum(mine[task] for task in shaped),
        "agreement": round(agreement, 3),
        "lost": [f"{task.kind}: {task.name}" for task in lost],
    }


def document(mode: str, history: Sequence[Trial]) -> QualityDocument | None:
    """What is known of the answers of a run that was asked to compare them; None of one that was not."""
    if mode == "off":
        return None
    known = baseline(history)
    found: QualityDocument = {
        "mode": mode,
        "tasks": sum(len(question.tasks) for question in battery()),
        "baseline": None,
        "cells": [],
        "reason": "no lossless cell is feasible: there is nothing to compare with",
    }
    if known is None or known.knobs is None:
        return found
    firm = len(_firm(known))
    found["baseline"] = {
        "knobs": known.knobs.published(),
        "solved": firm,
        "agreement": round(_agreement(*known.answers), 3),
    }
    found["reason"] = None
    if firm < FEWEST_SOLVED:
        found["reason"] = (
            f"cannot judge this model: without loss it solves {firm} of {found['tasks']} tasks"
        )
    else:
        lossy = (trial for trial in history if len(trial.answers) == 1)
        found["cells"] = [compared(known, trial) for trial in lossy]
    return found


def answers_document(history: Sequence[Trial]) -> AnswersDocument:
    """Every question with the answers of all cells that were asked, side by side."""
    asked = [trial for trial in history if trial.answers and trial.knobs is not None]
    tasks: list[AnsweredTask] = []
    for place, question in enumerate(battery()):
        shown: list[AnswerDocument] = [
            {
                "knobs": {} if trial.knobs is None else trial.knobs.published(),
                "round": number,
                "text": answers[place],
                "solved": [solves(task.rule, answers[place]) for task in question.tasks],
            }
            for trial in asked
            for number, answers in enumerate(trial.answers, start=1)
        ]
        names = ", ".join(task.name for task in question.tasks)
        tasks.append(
            {
                "task": f"{question.tasks[0].kind}: {names}",
                "prompt": question.prompt.strip(),
                "answers": shown,
            }
        )
    return {"tasks": tasks if asked else []}


def warnings(found: QualityDocument | None, best: Knobs | None) -> list[str]:
    """What the run says of its answers: why nothing could be judged, and a winner that is broken."""
    if found is None:
        return []
    if found["reason"] is not None:
        return [f"answers were not judged: {found['reason']}"]
    shown = None if best is None else best.published()
    return [
        f"{best} answers worse than without loss: {cell['reason']} ({', '.join(cell['lost'])})"
        for cell in found["cells"]
        if cell["verdict"] == "broken" and cell["knobs"] == shown
    ]


def sign_test(lost: int, gained: int) -> float:
    """The chance of losing so many or more, were losses and gains equally likely."""
    n = lost + gained
    return float(sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n)


def solves(rule: Rule, answer: str | None) -> bool:
    """Whether an answer holds what the rule wants; a thought before it does not count."""
    if answer is None:
        return False
    text = _THOUGHT.sub("", answer).strip()
    if rule.number is not None:
        numbers = _NUMBER.findall(text.replace(",", ""))
        return bool(numbers) and float(numbers[-1]) == rule.number
    if rule.words:
        return all(word.lower() in text.lower() for word in rule.words)
    if rule.lines:
        lines = [line.strip() for line in text.splitlines() if line.strip("` ")]
        return tuple(lines) == rule.lines
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1], parse_constant=str)
    except (ValueError, RecursionError):
        return False
    return _matches(rule.json or {}, value)


def _matches(wanted: Mapping[str, object], value: object) -> bool:
    """Whether this is an object with exactly these members."""
    if not isinstance(value, dict) or set(value) != set(wanted):
        return False
    return all(
        _matches(member, value[name])
        if isinstance(member, Mapping)
        else type(value[name]) in (type(member), float) and value[name] == member
        for name, member in wanted.items()
    )


def _solved(answers: Answers) -> dict[Task, bool]:
    return {
        task: solves(task.rule, answer)
        for question, answer in zip(battery(), answers, strict=True)
        for task in question.tasks
    }


def _firm(known: Trial) -> list[Task]:
    """The tasks that the baseline has solved in both its rounds."""
    first, second = (_solved(answers) for answers in known.answers)
    return [task for task in first if first[task] and second[task]]


def _agreement(one: Answers, other: Answers) -> float:
    """The share of questions whose answers begin with the same words."""
    same = [_words(a) == _words(b) for a, b in zip(one, other, strict=True)]
    return sum(same) / len(same)


def _words(answer: str | None) -> list[str]:
    return (answer or "").split()[:FIRST_WORDS]


def _whole(kind: str, firm: Sequence[Task], lost: Sequence[Task]) -> bool:
    """Whether all firm tasks of a kind are lost; one alone may be chance."""
    mine = [task for task in firm if task.kind == kind]
    return len(mine) >= FEWEST_LOST and all(task in lost for task in mine)
