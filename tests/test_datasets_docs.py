"""The reference of data sets says what the code says, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from hilum.datasets import describe, facts_of
from hilum.survey.findings import CODES

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "datasets.md").read_text(encoding="utf-8")


def test_every_kind_with_its_facts() -> None:
    assert re.findall(r"^### (\w+)$", PAGE, re.M) == list(describe())
    for name, text in describe().items():
        block = PAGE.split(f"\n### {name}\n", 1)[1].split("\n##", 1)[0]
        assert text in block
        facts = facts_of(name)
        if facts is None:
            continue
        for value in (facts.title, facts.cases, facts.licence, facts.citation, facts.home, facts.layout, facts.by_hand):
            assert value in block, (name, value)
        assert re.findall(r"^- `([\w-]+)`: (.+)$", block, re.M) == [(trap.code, trap.text) for trap in facts.traps]


def test_every_finding() -> None:
    table = PAGE.split("## Findings", 1)[1].split("\n\nClasses", 1)[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+) \|$", table, re.M)
    assert rows == [(code, kind, text) for code, (kind, text) in CODES.items()]
