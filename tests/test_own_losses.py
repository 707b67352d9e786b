"""A loss of one's own by its dotted name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hilum.errors import RecipeError
from hilum.labels import SCHEMES
from hilum.training.losses import check_loss, make_loss, region_table

SOURCE = """
import torch

def halved(logits, truth, *, power=1.0):
    assert logits.shape[2:] == truth.shape[1:] and logits.ndim == 3
    return 0.5 * torch.nn.functional.cross_entropy(logits, truth) ** power

def flat(logits, truth):
    assert logits.ndim == 4
    return logits.mean()

flat.spatial = True

def binary(logits, truth):
    assert logits.shape == truth.shape
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_losses.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_losses", None)


def test_it_is_taken_with_its_options_and_in_sums() -> None:
    logits, truth = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    entropy = float(make_loss("ce", {}, 3)(logits, truth))
    assert float(make_loss("my_losses.halved", {}, 3)(logits, truth)) == pytest.approx(entropy / 2)
    assert float(make_loss("my_losses.halved", {"power": 2}, 3)(logits, truth)) == pytest.approx(entropy**2 / 2)
    both = make_loss("sum", {"terms": {"ce": 1.0, "my_losses.halved": 2.0}}, 3)
    assert float(both(logits, truth)) == pytest.approx(2 * entropy)
    assert float(make_loss("my_losses.flat", {}, 3)(logits, truth)) == pytest.approx(float(logits.mean()))


def test_it_is_taken_for_regions() -> None:
    table = region_table(SCHEMES["kits"])
    logits, truth = torch.randn(2, 3, 4, 5), torch.randint(0, 4, (2, 4, 5))
    expected = make_loss("ce", {}, 4, regions=table)(logits, truth)
    assert float(make_loss("my_losses.binary", {}, 4, regions=table)(logits, truth)) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("my_losses.none", {}, "has no attribute 'none'.*dotted name of a function"),
        ("no_such_module.loss", {}, "No module named 'no_such_module'.*PYTHONPATH"),
        ("my_losses.halved", {"strength": 1}, "has no option 'strength'.*power"),
    ],
)
def test_what_cannot_be_had_is_said(name: str, options: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_loss(name, options, 3)
