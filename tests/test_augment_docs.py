"""docs/reference/augmentation.md says what the presets do: names, order, probabilities."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from hilum.patches.acquisition import ACQUISITION
from hilum.patches.intensity import CHANGES
from hilum.patches.presets import PRESETS, AugmentSettings, settings_from

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "augmentation.md").read_text(encoding="utf-8")
SHAPE = ["rotation", "scale", "crop", "elastic"]


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_changes_stand_in_their_order_with_their_probabilities() -> None:
    head, _, *table = rows()
    presets = [name.strip("`") for name in head[3:]]
    assert ["none", *presets] == list(PRESETS)
    assert [row[0].strip("`") for row in table] == [*SHAPE, *ACQUISITION, *CHANGES]
    for row in table:
        name = row[0].strip("`")
        for preset, told in zip(presets, row[3:], strict=True):
            often = getattr(PRESETS[preset], f"{name}_probability")
            if name in SHAPE:
                often *= PRESETS[preset].spatial_probability
            assert float(told or 0) == often, (name, preset)


def test_settings_on_the_page_exist_and_none_is_missing() -> None:
    known = {field.name for field in fields(AugmentSettings)}
    told = {word for row in rows()[2:] for word in re.findall(r"`(\w+)`", row[2])}
    assert told <= known
    probabilities = {name for name in known if name.endswith("_probability")}
    assert known - told - probabilities == {"mirror", "spatial_in_plane", "flat_rotation_degrees"}


def test_the_example_is_a_recipe() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    patches = tomllib.loads(block)["patches"]
    assert settings_from(patches["augment"], patches["augment_options"]).elastic_mm == (20.0, 50.0)
    assert all(preset.mirror == (0, 1, 2) for name, preset in PRESETS.items() if name != "none")
