"""Answers to the quality guard's questions, as a model gives them that solves all of them, or none."""

from __future__ import annotations

import json

from autotuned.core.model import Answers
from autotuned.core.quality import Question, Rule, battery


def solved(question: Question) -> str:
    """An answer that solves every task of a question."""
    return "\n".join(right(task.rule) for task in question.tasks)


def right(rule: Rule) -> str:
    """An answer that solves a task by its rule."""
    if rule.number is not None:
        return f"{rule.number:g}"
    if rule.words:
        return " ".join(rule.words)
    return "\n".join(rule.lines) if rule.lines else json.dumps(rule.json)


def answers(*wrong: str) -> Answers:
    """The whole battery, solved but for the tasks of these kinds or names."""
    return tuple(
        "garbled"
        if any(word in (task.kind, task.name) for task in question.tasks for word in wrong)
        else solved(question)
        for question in battery()
    )


def by_prompt(*wrong: str) -> dict[str, str]:
    """The same for a scripted server: what to answer where a prompt holds this."""
    return {
        question.prompt.strip(): answer or ""
        for question, answer in zip(battery(), answers(*wrong), strict=True)
    }
