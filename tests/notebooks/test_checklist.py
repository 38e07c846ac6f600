"""Every point of the reviewers' checklists is answered, and what an answer rests on is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cskt.report.checklist import run_facts
from tests.run_records import grid_file, run_file, write_ranks

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"
NEURIPS = (
    "Claims",
    "Limitations",
    "Theory, assumptions and proofs",
    "Reproducibility of the results",
    "Open access to data and code",
    "Settings and details",
    "Statistical significance",
    "Compute resources",
    "Code of ethics",
    "Broader impacts",
    "Safeguards",
    "Licences of existing assets",
    "New assets",
    "Crowdsourcing and human subjects",
    "Institutional review board",
    "Use of large language models",
)
COMPLETENESS = (
    "Dependencies",
    "Training code",
    "Evaluation code",
    "Pre-trained models",
    "README with results and commands",
)
ANSWERS = r"\*\*(Yes|Partly|No|Not applicable)\.\*\* \S"
FILE = r"`([\w./-]+/[\w.-]+|[\w.-]+\.(?:md|toml|txt|yml)|LICENSE)`"


def page() -> str:
    """The prose of the notebook."""
    notebook = json.loads((ROOT / "notebooks" / "checklist.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def answers() -> dict[str, str]:
    """What stands below each heading of a point."""
    parts = re.split(r"^### (?:\d+\. )?(.+)$", page(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def targets(text: str) -> list[str]:
    """Where the links of a text lead that do not leave the book."""
    links = re.findall(r"\]\(([^)\s#]+)", text)
    return [link for link in links if "://" not in link]


def test_every_point_stands_there_in_order():
    assert list(answers()) == [*NEURIPS, *COMPLETENESS]
    numbered = re.findall(r"^### (\d+)\. ", page(), flags=re.MULTILINE)
    assert numbered == [str(number) for number in range(1, len(NEURIPS) + 1)]


@pytest.mark.parametrize("point", [*NEURIPS, *COMPLETENESS])
def test_every_point_is_answered_and_names_what_it_rests_on(point):
    answer = answers()[point].strip()
    assert re.match(ANSWERS, answer)
    assert targets(answer) or re.search(FILE, answer)


def test_every_link_leads_to_a_page_of_the_book():
    contents = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    chapters = set(re.findall(r"file: (\S+)", contents))
    links = targets(page())
    assert len(links) > 20
    for link in links:
        assert (RESULTS / link).is_file(), link
        chapter = (RESULTS / link).resolve().relative_to(ROOT / "book").with_suffix("")
        assert chapter.as_posix() in chapters, link


def test_every_file_that_is_named_is_there():
    names = re.findall(FILE, page())
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).is_file(), name


def test_every_number_of_the_page_is_a_fact_of_the_runs(tmp_path):
    facts = run_facts(tmp_path)
    used = re.findall(r"\{glue:text\}`([\w]+)", page())
    assert set(used) <= set(facts)
    assert len(set(used)) >= 6


def test_facts_count_each_run_once(tmp_path):
    folder = grid_file(tmp_path, "components", "CSKT", 0, 30.0, duration_s=7200)
    in_grid = folder / "components" / "CSKT-0.json"
    (folder / "CSKT-0.json").write_text(in_grid.read_text())
    write_ranks(folder / "CSKT-0.json", [1, 2])
    run_file(folder, "cskt-1", seed=1, duration_s=3600, commit="d" * 40)
    run_file(folder, "bare", method="zero-shot", duration_s=0)
    assert run_facts(folder) == {
        "runs": 3,
        "ranked": 1,
        "seeds": 2,
        "methods": 2,
        "hours": 3.0,
        "minutes": 120.0,
        "commits": 2,
    }
