"""Whether a run may be gone on with: what must stay, what may change, and how a difference is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hilum.config import recipe_from, to_table
from hilum.errors import RecipeError
from hilum.labels import SCHEMES
from hilum.training.setup import check_same_run


def table(**sections: Any) -> dict[str, Any]:
    return to_table(recipe_from({"name": "x", "labels": "kits"} | sections))


def test_a_scheme_s_name_and_its_table_are_the_same_labels() -> None:
    facts = {"recipe": table(labels=SCHEMES["kits"].to_json()), "fold": "0"}
    check_same_run(table(training={"steps": 9, "budget": "2h"}), 0, facts, Path("run"))


@pytest.mark.parametrize(
    ("now", "fold", "sentence"),
    [
        (table(labels="abdomen"), 0, "begun differently: labels were 'kits' and are 'abdomen'; wanted"),
        (table(labels={"name": "kits", "values": {"kidney": 1}}), 0, "begun differently: labels mean something else"),
        (table(training={"seed": 3}), 0, r"begun differently: training\.seed was 0 and is 3"),
        (table(), "all", "begun differently: fold was '0' and is 'all'"),
    ],
)
def test_what_differs_is_told(now: dict[str, Any], fold: int | str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_same_run(now, fold, {"recipe": table(), "fold": "0"}, Path("run"))
