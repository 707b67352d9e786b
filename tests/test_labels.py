from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import LabelError, RecipeError, UsageError
from hilum.labels import SCHEMES, LabelScheme, scheme_from


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_schemes_survive_json(name: str) -> None:
    import json

    scheme = scheme_from(name)
    assert scheme_from(json.loads(json.dumps(scheme.to_json()))) == scheme
    assert scheme.class_count == len(scheme.values) + 1
    assert (scheme.value_lookup()[scheme.class_lookup()[list(scheme.values)]] == scheme.values).all()


def test_kits_regions_are_the_challenge_s() -> None:
    kits = scheme_from("kits")
    assert {r.name: r.labels for r in kits.regions} == {"kidney_and_mass": (1, 2, 3), "mass": (2, 3), "tumor": (2,)}
    assert kits.of("kidney", "tumour", "cyst") == (2, 3) and kits.organs == ("kidney",)
    assert not kits.sided and scheme_from("abdomen").sided


def test_own_schemes_are_read_from_a_short_table() -> None:
    table = {"name": "mine", "values": {"left kidney": 7, "liver": 2, "liver tumour": 3}, "regions": {"all": [2, 3]}}
    scheme = scheme_from(table)
    assert scheme.values == (2, 3, 7)
    assert scheme.label(7).side == "left" and scheme.label(7).organ == "kidney"
    assert scheme.label(3).is_lesion and scheme.label(3).organ == "liver"
    assert scheme.class_lookup()[[0, 2, 3, 7]].tolist() == [0, 1, 2, 3]
    assert scheme.region("all").labels == (2, 3)
    pair = scheme_from({"values": {"kidneys": 1, "kidney tumour": 2, "left lung": 3, "liver": 4}})
    assert [label.paired for label in pair.labels] == [True, False, False, False]


def test_lesions_that_name_no_organ_are_those_of_the_only_one() -> None:
    """Else a tumour would cut its organ in two, of which keep_largest leaves one."""
    one = scheme_from({"values": {"kidney": 1, "tumour": 2, "cyst": 3}})
    assert [label.organ for label in one.labels] == ["kidney"] * 3
    two = scheme_from({"values": {"liver": 1, "spleen": 2, "tumour": 3, "liver cyst": 4}})
    assert [label.organ for label in two.labels] == ["liver", "spleen", "", "liver"]


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"values": {"a": 0}}, "label values"),
        ({"values": {"a": 1, "b": 1}}, "label values"),
        ({"values": {"a": 300}}, "label values"),
        ({"values": {"a": 1}, "regions": {"x": [9]}}, "region 'x'"),
        ({"values": {"a": "x"}}, "cannot be read.*'x'"),
        ({"values": {"a": 1.5}}, "1.5 is no whole number"),
        ({"values": [1, 2]}, "cannot be read"),
        ({"values": {"a": 1}, "regions": {"x": 1}}, "cannot be read"),
        (5, "a label scheme 5"),
        ({"labelz": []}, "labelz"),
        ({"name": "x"}, "cannot be read"),
    ],
)
def test_impossible_schemes_are_refused(table: dict, found: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RecipeError, match=found):
        scheme_from(table)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError, match="kits19"):
        scheme_from("kitz")
    with pytest.raises(UsageError, match="tumor"):
        scheme_from("kits").region("tumour")
    with pytest.raises(UsageError, match="label 9"):
        scheme_from("kits").label(9)


def check(values: list[float], dtype: str, scheme: LabelScheme | None = None) -> np.ndarray:
    return (scheme or scheme_from("kits")).check(np.array(values, dtype).reshape(1, 1, -1), "seg.nii.gz")


def test_label_maps_are_checked_against_their_scheme() -> None:
    assert check([0, 1, 3], "float32").dtype == np.uint8
    assert check([0, 1, 3], "int16").tolist() == [[[0, 1, 3]]]
    with pytest.raises(LabelError, match=r"seg.nii.gz: holds numbers that are no integers, such as \[0.5\]"):
        check([0, 0.5], "float32")
    with pytest.raises(LabelError, match="no integers"):
        check([0, np.nan], "float32")
    with pytest.raises(LabelError, match=r"does not know: 4 \(2 voxels\), 9 \(1 voxels\)"):
        check([4, 4, 9, 1], "uint8")
    with pytest.raises(LabelError, match=r"-1 \(1 voxels\), 500"):
        check([-1, 500, 1], "int16")


def test_regions_say_which_label_they_write() -> None:
    assert scheme_from("kits").writers() == ((0, 1), (1, 3), (2, 2))
    assert scheme_from("lits").writers() == ((0, 1), (1, 2))
    assert scheme_from("abdomen").writers() == ((0, 1), (1, 2), (2, 3), (3, 4))
    small_first = {"values": {"organ": 1, "tumour": 2}, "regions": {"tumour": [2], "organ": [1, 2]}}
    assert scheme_from(small_first).writers() == ((1, 1), (0, 2))


def test_what_regions_write_can_be_said_and_travels() -> None:
    table = scheme_from("kits").to_json()
    assert "writes" not in table["regions"][0]
    for region, label in zip(table["regions"], (1, 3, 2), strict=True):
        region["writes"] = label
    said = scheme_from(table)
    assert said.writers() == ((0, 1), (1, 3), (2, 2)) and scheme_from(said.to_json()) == said
    table["regions"][1]["writes"] = 0
    with pytest.raises(RecipeError, match="only some regions"):
        scheme_from(table).writers()
    table["regions"][1]["writes"] = 9
    with pytest.raises(RecipeError, match="writes the label 9"):
        scheme_from(table)


def test_regions_that_write_nothing_of_their_own_are_refused() -> None:
    same = {"values": {"organ": 1, "tumour": 2}, "regions": {"a": [1, 2], "b": [1, 2]}}
    with pytest.raises(RecipeError, match="no label for itself"):
        scheme_from(same).writers()
    with pytest.raises(RecipeError, match=r"labels \[2\] are written by no region"):
        scheme_from({"values": {"organ": 1, "tumour": 2}, "regions": {"organ": [1]}}).writers()
