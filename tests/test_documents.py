"""What people read is held to the code: the README names every command, and every page it links exists."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import click
import jsonschema
import pytest

from autotunectl import cli
from autotunectl.text.result import recommendation
from tests.support.home import Home

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_command_and_no_other() -> None:
    table = README[README.index("| command | does |") : README.index("Every command has")]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    named = {word for cell in first_cells for word in re.findall(r"`([a-z-]+)`", cell)}
    assert named == set(cli.COMMANDS)


def test_every_link_of_every_page_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_page_of_one_run_names_files_and_things_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stations = re.findall(r"^\| (\d+) \| `(autotune[\w/]+\.py)`(.*)", text, re.MULTILINE)
    assert [int(number) for number, _, _ in stations] == list(range(1, len(stations) + 1))
    assert 20 <= len(stations) <= 24
    for _, path, rest in stations:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([A-Za-z_.]+)`", rest.partition("|")[0]):
            assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", source), (path, name)


def test_the_readme_starts_with_the_two_commands_that_the_makefile_has() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ make (\S+)", README, re.MULTILINE)
    assert shown[:2] == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in shown)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The program that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_about_the_socket_are_those_of_the_agent(
    home: Home, generator: ModuleType
) -> None:
    home.start_daemon()
    described = home.rpc("rpc.discover")
    kept = json.loads((ROOT / "docs" / "openrpc.json").read_text(encoding="utf-8"))
    assert kept == described, "run: make docs"
    present = generator.PAGE.read_text(encoding="utf-8")
    assert present.rstrip() == generator.whole_page(present, described).rstrip(), "run: make docs"


def test_every_example_is_an_answer_that_its_method_may_give() -> None:
    described = json.loads((ROOT / "docs" / "openrpc.json").read_text(encoding="utf-8"))
    shown = 0
    for method in described["methods"]:
        schema = {**method["result"]["schema"], "components": described["components"]}
        for example in method["examples"]:
            jsonschema.validate(example["result"]["value"], schema)
            assert {p["name"] for p in example["params"]} <= {p["name"] for p in method["params"]}
            shown += 1
    assert shown > 20


def test_the_manual_pages_are_those_of_the_commands(generator: ModuleType, tmp_path: Path) -> None:
    generator.manual(tmp_path)
    made = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.1")}
    kept = {page.name: page.read_text("utf-8") for page in (ROOT / "docs" / "man").glob("*.1")}
    assert kept == made, "run: make docs"
    assert {f"autotunectl-{name}.1" for name in cli.COMMANDS} <= set(made)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_example_of_a_recommendation_is_what_the_kept_demo_run_prints(page: str) -> None:
    run = json.loads((ROOT / "tests" / "support" / "demo_run.json").read_text("utf-8"))["result"]
    printed = recommendation(run, 80).replace("/tmp/demo/models/", "~/models/")  # noqa: S108
    block = printed[: printed.index("\n  try one")]
    assert block in (ROOT / page).read_text("utf-8")


def test_every_command_named_in_a_sentence_is_one_that_the_program_has_with_flags_that_it_knows() -> (
    None
):
    unknown = []
    context = click.Context(cli.main)
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"`autotunectl\s([^`]+)`", text):
            group: click.Command | None = cli.main
            known = {flag for p in cli.main.params for flag in p.opts + p.secondary_opts}
            for word in re.split(r"[\s|]+", line):
                member = (
                    group.get_command(context, word) if isinstance(group, click.Group) else None
                )
                if member is not None:
                    group = member
                    known |= {flag for p in member.params for flag in p.opts + p.secondary_opts}
            flags = set(re.findall(r"(?<!\S)--[a-z-]+", line))
            if group is cli.main or not flags - {"--help", "--version"} <= known:
                unknown.append(f"{page.name}: autotunectl {line}")
    assert unknown == []
