"""The quality guard: which cell is asked, what its answers are worth, and what may not win."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from autotuned.core import quality
from autotuned.core.model import STAGE_CONFIRM, Answers, Trial
from autotuned.core.pipeline import battery_rounds, with_kept
from autotuned.core.plan import Plan, lossy_knobs, plan
from autotuned.core.quality import Rule, battery, compared, document, sign_test, solves
from autotuned.core.request import parse
from autotuned.descriptions import SHIPPED
from autotuned.shared.knobs import Knobs
from tests.core.worlds import cell
from tests.support.battery import answers, solved

LOSSLESS, LOSSY = Knobs(None, 1, 2000), Knobs(8, 1, 2000)
MODEL = "acme/a-7B"


def guarded(mode: str = "veto", **fields: object) -> Plan:
    request = parse({"candidate_models": [MODEL], "max_batch_axis": [1], "quality": mode, **fields})
    spec = SHIPPED.all()["macprovider"]
    return plan(request, (), 48, 1, spec)


def asked(knobs: Knobs, *rounds: Answers, tps: float = 10.0, ttft: float = 100.0) -> Trial:
    """A feasible cell with these answers."""
    made = cell(guarded(), 1, 0, tps, ttft)
    return replace(made, knobs=knobs, answers=rounds)


BASELINE = replace(asked(LOSSLESS, answers(), answers()), kept=True)


def test_every_class_has_two_tasks_so_that_one_alone_never_decides() -> None:
    kinds = [task.kind for question in battery() for task in question.tasks]
    assert all(kinds.count(kind) >= 2 for kind in kinds)
    assert len(kinds) == 19


def test_the_right_answer_solves_each_task_also_behind_a_thought_and_no_other_does() -> None:
    for question, other in itertools.pairwise((*battery(), battery()[0])):
        for task in question.tasks:
            assert solves(task.rule, solved(question)), task.name
            assert solves(task.rule, f"<think>5 or 6?</think>\n{solved(question)}")
            assert not solves(task.rule, "<think>" + solved(question))
            assert not solves(task.rule, None)
        if other.tasks[0].kind != question.tasks[0].kind:
            assert not solves(question.tasks[0].rule, solved(other))


@pytest.mark.parametrize(
    ("rule", "answer", "judged"),
    [
        (Rule(number=1234), "It is 1,234.", True),
        (Rule(number=45), "17 + 28 = 46", False),
        (Rule(json={"a": 1}), '```json\n{"a": 1}\n```', True),
        (Rule(json={"a": 1}), '{"a": 1.0}', True),
        (Rule(json={"a": 1}), '{"a": true}', False),
        (Rule(json={"a": True}), '{"a": 1}', False),
        (Rule(json={"a": 1}), '{"a": 1, "b": 2}', False),
        (Rule(json={"a": {"b": "c"}}), '{"a": ["c"]}', False),
        (Rule(json={"a": 1}), "[" * 100_000, False),
        (Rule(json={"a": 1}), "{" * 100_000 + "}", False),
        (Rule(lines=("x 1", "y 2")), "```\nx 1\ny 2\n```", True),
        (Rule(lines=("x 1", "y 2")), "y 2\nx 1", False),
    ],
)
def test_rules_judge_what_stands_in_the_answer(rule: Rule, answer: str, judged: bool) -> None:
    assert solves(rule, answer) is judged


def test_the_needles_stand_at_their_places_before_a_paragraph() -> None:
    *_, long = battery()
    haystack = "A paragraph of prose.\n\n" * 100
    text = quality.long_prompt(long, haystack)
    for at, sentence in long.needles:
        assert abs(text.index(sentence) / len(haystack) - at) < 0.07
    assert text.endswith(long.prompt)
    assert all(sentence in quality.long_prompt(long, "short") for _, sentence in long.needles)


def test_lossless_cells_come_first_so_that_there_is_something_to_compare_with() -> None:
    lossy = lossy_knobs(SHIPPED.all()["macprovider"])
    for order in ("axis", "reverse", "random"):
        cells = guarded(kv_bits_axis=[8, "unset", 4], cell_order=order, seed=3).cells
        assert [quality.is_lossy(knobs, lossy) for knobs in cells] == [False, True, True]
    assert guarded("off", kv_bits_axis=[8, "unset"]).cells[0].kv_bits == 8
    searched = guarded(kv_bits_axis=[8, "unset"], search="tpe")
    assert searched.cells[0].kv_bits is None
    assert searched.lossy == lossy


def test_the_first_lossless_cell_answers_twice_and_a_lossy_one_once_if_it_would_win() -> None:
    plan = guarded()
    assert battery_rounds(plan, [], asked(LOSSLESS)) == 2
    assert battery_rounds(plan, [BASELINE], asked(LOSSLESS, tps=20)) == 0
    assert battery_rounds(plan, [BASELINE], asked(LOSSY, tps=20)) == 1
    assert battery_rounds(plan, [BASELINE], asked(LOSSY, tps=5)) == 0
    assert battery_rounds(plan, [], asked(LOSSY, tps=20)) == 0
    assert battery_rounds(guarded("off"), [], asked(LOSSLESS)) == 0
    assert battery_rounds(plan, [], replace(asked(LOSSLESS), stage=STAGE_CONFIRM)) == 0


def test_a_broken_cell_cannot_win_under_veto_and_is_only_told_under_warn() -> None:
    broken = asked(LOSSY, answers("needles"), tps=20)
    judged = with_kept(guarded(), [BASELINE], broken)
    assert (judged.kept, judged.fits, judged.vetoed) == (
        False,
        True,
        "quality: 3 of 3 needles lost",
    )
    warned = with_kept(guarded("warn"), [BASELINE], broken)
    assert (warned.kept, warned.vetoed) == (True, None)
    found = document("warn", [BASELINE, warned])
    told = quality.warnings(found, LOSSY)
    assert told == [
        "kv_bits 8, max_batch 1, max_context 2000 answers worse than without loss: "
        "quality: 3 of 3 needles lost (needles: red, needles: green, needles: blue)"
    ]
    assert quality.warnings(found, LOSSLESS) == []
    assert quality.warnings(found, None) == []


def test_in_a_tie_the_lossless_cell_wins_under_veto_alone() -> None:
    tie = asked(LOSSY, answers(), tps=10.1, ttft=50)
    assert with_kept(guarded("warn"), [BASELINE], tie).kept
    assert not with_kept(guarded(), [BASELINE], tie).kept
    assert with_kept(guarded(), [BASELINE], asked(LOSSY, answers(), tps=10.3)).kept
    assert with_kept(guarded(), [BASELINE], asked(LOSSLESS, tps=10.1, ttft=50)).kept
    lossy_best = replace(asked(LOSSY, answers(), tps=12), kept=True)
    nearly = asked(Knobs(4, 1, 2000), answers(), tps=12.1, ttft=50)
    assert with_kept(guarded(), [BASELINE, lossy_best], nearly).kept


@pytest.mark.parametrize(
    ("mine", "verdict", "reason"),
    [
        (answers(), "same", None),
        (answers("sum"), "differs", "quality: 1 of 3 arithmetic tasks lost"),
        (answers("sum", "person", "water", "add"), "differs", "quality: 4 of 19 tasks lost"),
        (
            answers("sum", "person", "water", "add", "days"),
            "broken",
            "quality: 5 of 19 tasks lost",
        ),
        (answers("json"), "broken", "quality: 2 of 2 json tasks lost"),
        (answers("json", "sum"), "broken", "quality: 2 of 2 json tasks lost"),
    ],
)
def test_a_cell_is_broken_by_a_whole_class_or_by_losses_beyond_chance(
    mine: Answers, verdict: str, reason: str | None
) -> None:
    found = compared(BASELINE, asked(LOSSY, mine))
    assert (found["verdict"], found["reason"]) == (verdict, reason)


def test_other_words_without_a_loss_only_differ_and_gains_weigh_against_losses() -> None:
    wordy = tuple(
        f"Well. {answer}" if place == 10 else answer for place, answer in enumerate(answers())
    )
    assert compared(BASELINE, asked(LOSSY, wordy))["verdict"] == "differs"
    unsure = asked(LOSSLESS, answers(), wordy)
    assert compared(unsure, asked(LOSSY, answers()))["verdict"] == "same"
    weak = asked(LOSSLESS, *[answers("colours", "numbers", "capital", "opposite", "length")] * 2)
    traded = compared(weak, asked(LOSSY, answers("sum", "person", "water", "add", "days")))
    assert traded["verdict"] == "differs"
    assert sign_test(5, 0) < 0.05 < sign_test(4, 0)
    assert sign_test(5, 5) > 0.5


def test_a_weak_model_that_loses_all_it_solved_is_broken() -> None:
    able = ("sum", "person", "water", "add")
    names = {task.name for question in battery() for task in question.tasks}
    weak = asked(LOSSLESS, *[answers(*names.difference(able))] * 2)
    found = compared(weak, asked(LOSSY, answers(*names)))
    assert (found["verdict"], found["reason"]) == ("broken", "quality: 4 of 4 tasks lost")


def test_a_model_that_solves_next_to_nothing_is_not_judged_and_loses_no_cell() -> None:
    kinds = {task.kind for question in battery() for task in question.tasks} - {"needles"}
    weak = replace(asked(LOSSLESS, *[answers(*kinds)] * 2), kept=True)
    other = with_kept(guarded(), [weak], asked(LOSSY, answers(*kinds, "needles"), tps=20))
    assert (other.kept, other.vetoed) == (True, None)
    found = document("veto", [weak, other])
    assert found is not None
    assert found["reason"] == "cannot judge this model: without loss it solves 3 of 19 tasks"
    assert found["cells"] == []
    assert quality.warnings(found, LOSSY) == [f"answers were not judged: {found['reason']}"]


def test_without_a_feasible_lossless_cell_there_is_nothing_to_compare_with() -> None:
    found = document("veto", [asked(LOSSY)])
    assert found is not None
    assert (found["baseline"], found["cells"]) == (None, [])
    assert "no lossless cell is feasible" in str(found["reason"])
    assert document("off", [BASELINE]) is None
    assert quality.warnings(None, LOSSY) == []
    assert with_kept(guarded(), [], asked(LOSSY, tps=20)).kept


def test_the_document_counts_needles_structure_and_agreement_beside_the_baseline() -> None:
    garbled = asked(LOSSY, answers("needles", "weather"), tps=20)
    found = document("warn", [BASELINE, garbled])
    assert found is not None
    assert found["baseline"] == {"knobs": LOSSLESS.published(), "solved": 19, "agreement": 1.0}
    [other] = found["cells"]
    assert (other["needles"], other["structured"], other["solved"]) == (0, 3, 15)
    assert other["agreement"] == pytest.approx(15 / 17, abs=0.001)
    assert "tool call: weather" in other["lost"]


def test_every_answer_is_kept_beside_the_others_in_the_order_of_the_questions() -> None:
    shown = quality.answers_document([BASELINE, asked(LOSSY, (*answers()[:-1], None))])
    assert len(shown["tasks"]) == len(battery())
    last = shown["tasks"][-1]
    assert last["task"] == "needles: red, green, blue"
    assert [(each["round"], each["solved"]) for each in last["answers"]] == [
        (1, [True] * 3),
        (2, [True] * 3),
        (1, [False] * 3),
    ]
    assert quality.answers_document([cell(guarded(), 1, 0)]) == {"tasks": []}
