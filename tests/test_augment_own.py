"""Augmentations of one's own inside batches: repeatable, after the preset, refused in words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hilum.config import PatchOptions, recipe_from
from hilum.errors import RecipeError
from hilum.patches.own import own_changes
from test_batches import batches

SOURCE = """
import torch

seen = []

def brighter(image_CDHW, labels_DHW, generator):
    seen.append((tuple(image_CDHW.shape), image_CDHW.dtype, tuple(labels_DHW.shape)))
    return image_CDHW + float(generator.uniform(1, 2)), labels_DHW

def doubled(image_CDHW, labels_DHW, generator):
    return 2 * image_CDHW, labels_DHW

def unknown_class(image_CDHW, labels_DHW, generator):
    return image_CDHW, labels_DHW + 9

def failing(image_CDHW, labels_DHW, generator):
    return image_CDHW / 0, undefined

def image_only(image_CDHW, labels_DHW, generator):
    return image_CDHW

def smaller(image_CDHW, labels_DHW, generator):
    return image_CDHW[:, 1:], labels_DHW

def mixed_labels(image_CDHW, labels_DHW, generator):
    return image_CDHW, labels_DHW.float()

def as_arrays(image_CDHW, labels_DHW, generator):
    return image_CDHW.numpy(), labels_DHW
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_changes.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_changes", None)


def images(*names: str, step: int = 0, **changes: Any) -> torch.Tensor:
    options = PatchOptions(augment="none", augment_own=tuple(f"my_changes.{name}" for name in names))
    with batches(options=options, **changes) as source:
        return source.batch(step).images


def test_they_come_after_the_preset_in_their_order() -> None:
    plain, added = images(), images("brighter")
    more = (added - plain).flatten(1)
    assert (more.std(dim=1) < 1e-5).all() and (more >= 1 - 1e-5).all() and (more <= 2 + 1e-5).all()
    assert abs(more[0, 0] - more[1, 0]) > 1e-4, "each patch has its own random numbers"
    torch.testing.assert_close(images("doubled", "brighter"), 2 * plain + (added - plain))
    torch.testing.assert_close(images("brighter", "doubled"), 2 * added)
    import my_changes  # type: ignore[import-not-found]

    assert my_changes.seen[0] == ((1, 8, 12, 12), torch.float32, (8, 12, 12))


def test_a_seed_repeats_them_whatever_was_asked_before() -> None:
    options = PatchOptions(augment="light", augment_own=("my_changes.brighter",))
    with batches(options=options) as source:
        forwards = [source.batch(step).images for step in range(4)]
    with batches(options=options, prefetch=0) as resumed:
        assert all(torch.equal(resumed.batch(step).images, forwards[step]) for step in (3, 1))


def test_validation_goes_without() -> None:
    assert torch.equal(images("brighter", augmented=False), images(augmented=False))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown_class", "left labels from 9 to 1[01]; wanted class indices from 0 to 3"),
        ("failing", r"failed with NameError: name 'undefined'.*; mend line 17 of .*my_changes.py"),
        ("image_only", r"returned Tensor; wanted \(image, labels\)"),
        ("smaller", r"was given float32 \(1, 8, 12, 12\) on cpu as image and returned float32 \(1, 7, 12, 12\)"),
        ("mixed_labels", "as labels and returned float32"),
        ("as_arrays", "returned ndarray as image"),
    ],
)
def test_what_they_may_not_do_is_said(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"patches.augment_own: .*{name}.*{message}"):
        images(name)


def test_unknown_functions_are_refused_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match=r"'my_changes.gone' cannot be imported.*PYTHONPATH"):
        batches(options=PatchOptions(augment_own=("my_changes.gone",)))
    with pytest.raises(RecipeError, match=r"'my_changes.seen' is a list"):
        own_changes(["my_changes.seen"])


def test_recipes_hold_them() -> None:
    assert recipe_from({"patches": {"augment_own": ["a.b"]}}).patches.augment_own == ("a.b",)
    with pytest.raises(RecipeError, match="augment_own"):
        recipe_from({"patches": {"augment_own": "a.b"}})
