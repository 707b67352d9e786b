"""Names of one's own: dotted, or entry points of an installed package; hilum's own names come first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum import datasets, networks, plugins
from hilum.errors import RecipeError, UsageError
from hilum.patches.own import own_changes
from hilum.training.losses import check_loss, make_loss

MODULE = """
import torch
from torch import nn

from hilum.datasets import Dataset

def build(options, in_channels, out_channels, dims):
    return nn.Conv3d(in_channels, out_channels, 1)

def check_patch(options, patch):
    pass

def halved(logits, truth, *, power=1.0):
    return 0.5 * torch.nn.functional.cross_entropy(logits, truth) ** power

def flipped(image_CDHW, labels_DHW, generator):
    return image_CDHW.flip(3), labels_DHW.flip(2)

MODULE_NAME = "theirs"

class Deep:
    shallow = staticmethod(flipped)

def open_dataset(path):
    return Dataset("theirs", (), None)
"""
ENTRIES = """
[hilum.networks]
theirs = their_parts
unet = their_parts
[hilum.losses]
halved = their_parts:halved
ce = their_parts:halved
[hilum.augmentations]
flipped = their_parts:flipped
deep = their_parts:Deep.shallow
gone = their_parts:gone
number = their_parts:__name__
[hilum.datasets]
theirs = their_parts
one = their_parts:open_dataset
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "their_parts.py").write_text(MODULE)
    made = tmp_path / "their_parts-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("their_parts", None)


def test_short_names_are_found_in_installed_packages(tmp_path: Path) -> None:
    network = networks.build("theirs", {}, 1, 3, 3)
    assert network(torch.zeros(1, 1, 2, 2, 2)).shape == (1, 3, 2, 2, 2)
    networks.check_patch("theirs", {}, (8, 8, 8))
    logits, truth = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    entropy = float(make_loss("ce", {}, 3)(logits, truth))
    check_loss("halved", {"power": 2}, 3, False)
    assert float(make_loss("halved", {"power": 2}, 3)(logits, truth)) == pytest.approx(entropy**2 / 2)
    both = make_loss("sum", {"terms": {"ce": 1.0, "halved": 2.0}}, 3)
    assert float(both(logits, truth)) == pytest.approx(2 * entropy)
    assert datasets.open_dataset("theirs", tmp_path).name == "theirs"
    assert {"flipped", "deep", "gone", "number"} <= set(plugins.names("augmentations"))


def test_functions_by_entry_point_and_by_dotted_name() -> None:
    image, labels = torch.arange(6.0).view(1, 1, 2, 3), torch.arange(6).view(1, 2, 3)
    for change in own_changes(["flipped", "deep", "their_parts.flipped"]):
        out, out_labels = change(image, labels, np.random.default_rng(0))
        assert torch.equal(out, image.flip(3)) and torch.equal(out_labels, labels.flip(2))


def test_own_names_cannot_be_replaced() -> None:
    assert networks._module("unet", "build").__name__ == "hilum.networks.unet"
    logits, truth = torch.randn(2, 3, 7), torch.randint(0, 3, (2, 7))
    expected = torch.nn.functional.cross_entropy(logits, truth)
    assert float(make_loss("ce", {}, 3)(logits, truth)) == pytest.approx(float(expected))


def test_unknown_names_list_what_packages_offer() -> None:
    with pytest.raises(RecipeError, match=r"no network 'thiers'.*'theirs'.*dotted name"):
        networks.build("thiers", {}, 1, 2, 3)
    with pytest.raises(RecipeError, match=r"no loss 'halfed'.*'halved'.*dotted name"):
        check_loss("halfed", {}, 3, False)
    with pytest.raises(UsageError, match=r"no kind of data set 'thiers'.*'theirs'"):
        datasets.open_dataset("thiers", ".")
    with pytest.raises(RecipeError, match=r"'fliped' is no installed entry point.*'flipped'.*f\(image_CDHW"):
        own_changes(["fliped"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "has no attribute 'gone'"),
        ("their_parts.gone", "has no attribute 'gone'.*PYTHONPATH"),
        ("not_there.at_all", "No module named 'not_there'"),
        (".", "'.' cannot be imported"),
        ("number", "is a str"),
    ],
)
def test_what_cannot_be_imported_is_said(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"patches.augment_own: .*{message}"):
        own_changes([name])


def test_modules_and_functions_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'one' is a function; wanted a module with open_dataset"):
        datasets.open_dataset("one", tmp_path)
    with pytest.raises(RecipeError, match=r"'their_parts.MODULE_NAME' is a str; wanted the dotted name of a function"):
        check_loss("their_parts.MODULE_NAME", {}, 3, False)


def test_two_packages_of_one_name_are_refused(installed: Path) -> None:
    other = installed / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[hilum.augmentations]\nflipped = other:flipped\n")
    with pytest.raises(RecipeError, match=r"several packages: \['other:flipped', 'their_parts:flipped'\].*dotted"):
        own_changes(["flipped"])
