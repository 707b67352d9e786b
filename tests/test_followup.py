"""Two dates of one patient: phantoms of known growth, turn and shift; RECIST's own rules; what a grid can bend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

import hilum.phantom.case as phantoms
from hilum.errors import InputError
from hilum.labels import SCHEMES
from hilum.results.digitising import long_axis_sd_mm, smallest_change, volume_sd_ml
from hilum.results.followup import doubling_days, follow_up
from hilum.results.measure import measure
from hilum.results.recist import recist, targets
from hilum.volume import Volume

KITS = SCHEMES["kits"]
Change = Callable[[phantoms.Patient], phantoms.Patient]


def a_seed() -> int:
    """The first small patient with a tumour and then at least two cysts."""
    kinds = ([x.kind for x in phantoms.draw_patient(seed, small=True).lesions] for seed in range(500))
    return next(n for n, found in enumerate(kinds) if found == ["tumour", "cyst", "cyst"])


def later(seed: int, change: Change, monkeypatch: pytest.MonkeyPatch, **grid: Any) -> phantoms.PhantomCase:
    """The same patient after a change, on another grid."""
    draw = phantoms.draw_patient
    with monkeypatch.context() as patch:
        patch.setattr(phantoms, "draw_patient", lambda *a, **k: change(draw(*a, **k)))
        return phantoms.make_case(seed, small=True, **grid)


def grown_and_gone(patient: phantoms.Patient) -> phantoms.Patient:
    """The first mass 1.25 times as wide, the last one gone."""
    first, *others = patient.lesions
    wider = replace(first, shape=replace(first.shape, radii=tuple(1.25 * r for r in first.shape.radii)))
    return replace(patient, lesions=(wider, *others[:-1]))


def moved(volume: Volume, degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> Volume:
    """What the patient turned and shifted looks like on the same grid."""
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = volume.world((np.array(volume.shape) - 1) / 2)
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, centre + shift_mm - turn @ centre
    back = np.linalg.inv(volume.affine) @ np.linalg.inv(motion) @ volume.affine
    return volume.with_array(affine_transform(volume.array, back[:3, :3], back[:3, 3], order=0))


def test_a_phantom_that_grew_turned_and_lost_a_lesion_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = a_seed()
    before = phantoms.make_case(seed, small=True)
    assert [x["kind"] for x in before.facts["lesions"]] == ["tumour", "cyst", "cyst"]
    after = later(seed, grown_and_gone, monkeypatch, spacing_mm=(2.6, 2.6, 4.0), shape=(132, 112, 48))
    now = moved(after.labels, (4, -3, 6), (12, -8, 5))
    tables = measure(before.labels, KITS), measure(now, KITS)
    answer = follow_up(now, tables[1], before.labels, tables[0], KITS, days=200)
    assert {x["side"] for x in answer["registration"]} == {"right", "left"}
    for entry in answer["registration"]:
        assert entry["dice"] > 0.85 and entry["turned_degrees"] == pytest.approx(7.8, abs=1.5)
    (grew,) = (m for m in answer["matched"] if tables[0]["lesions"][m["previous_id"] - 1]["kind"] == "tumour")
    truth = [next(x["volume_ml"] for x in case.facts["lesions"] if x["kind"] == "tumour") for case in (before, after)]
    assert grew["volume_before_ml"] == pytest.approx(truth[0], rel=0.01)
    assert grew["volume_change_percent"] == pytest.approx(100 * (truth[1] / truth[0] - 1), abs=6)
    assert grew["doubling_days"] == pytest.approx(200 * math.log(2) / math.log(truth[1] / truth[0]), rel=0.08)
    assert grew["volume_beyond_grid_error"] and grew["overlap"] > 0.9 and grew["distance_mm"] < 4
    gone = before.facts["lesions"][-1]
    (vanished,) = answer["vanished"]
    assert vanished["volume_ml"] == pytest.approx(gone["volume_ml"], rel=0.05) and answer["new_ids"] == []
    (same,) = (m for m in answer["matched"] if m["id"] != grew["id"])
    assert abs(same["volume_change_percent"]) < 15
    assert answer["recist"]["category"] == "PD" and not answer["warnings"]
    back = follow_up(before.labels, tables[0], now, tables[1], KITS)
    assert back["new_ids"] == [vanished["id"]] and back["vanished"] == [] and back["days"] is None
    assert all(m["doubling_days"] is None for m in back["matched"])


def test_nothing_changes_against_itself() -> None:
    case = phantoms.make_case(1, small=True)
    table = measure(case.labels, KITS)
    answer = follow_up(case.labels, table, case.labels, table, KITS, days=30)
    assert all(x["dice"] == pytest.approx(1, abs=0.01) and x["moved_mm"] < 0.5 for x in answer["registration"])
    assert [(m["id"], m["previous_id"]) for m in answer["matched"]] == [(x["id"], x["id"]) for x in table["lesions"]]
    assert all(m["volume_change_ml"] == 0 and not m["long_axis_beyond_grid_error"] for m in answer["matched"])
    assert answer["recist"]["category"] == "SD" and answer["new_ids"] == answer["vanished"] == []


def test_another_scheme_is_refused_and_an_empty_map_said_so() -> None:
    case = phantoms.make_case(1, small=True)
    table = measure(case.labels, KITS)
    with pytest.raises(InputError, match="label scheme 'lits'"):
        follow_up(case.labels, table, case.labels, {**table, "scheme": "lits"}, KITS)
    empty = case.labels.with_array(np.zeros_like(case.labels.array))
    answer = follow_up(empty, measure(empty, KITS), case.labels, table, KITS)
    assert answer["matched"] == [] and len(answer["vanished"]) == len(table["lesions"])
    assert "without registration" in answer["warnings"][0]


def test_another_patient_fits_poorly() -> None:
    case, other = phantoms.make_case(1, small=True), phantoms.make_case(11, small=True)
    wide = Volume(other.labels.array, other.labels.affine @ np.diag([1.4, 0.7, 1.2, 1.0]))
    answer = follow_up(wide, measure(wide, KITS), case.labels, measure(case.labels, KITS), KITS)
    assert any("same patient" in text for text in answer["warnings"])


def tumour(number: int, size_mm: float, organ: str = "kidney", kind: str = "tumour") -> dict[str, Any]:
    return {"id": number, "long_axis_mm": size_mm, "organ": organ, "kind": kind}


@pytest.mark.parametrize(
    ("before", "now", "became", "new", "category"),
    [
        ([(1, 50.0)], [(1, 36.0)], {1: 1}, [], "SD"),  # 28 % down
        ([(1, 50.0)], [(1, 35.0)], {1: 1}, [], "PR"),  # 30 % down
        ([(1, 50.0)], [(1, 60.0)], {1: 1}, [], "PD"),  # 20 % and 10 mm up
        ([(1, 20.0)], [(1, 24.5)], {1: 1}, [], "SD"),  # 22 %, but 4.5 mm only
        ([(1, 50.0)], [], {1: None}, [], "CR"),
        ([(1, 50.0), (2, 8.0)], [(1, 8.0)], {1: None, 2: 1}, [], "PR"),  # a small tumour is left
        ([(1, 50.0)], [(1, 30.0), (2, 11.0)], {1: 1}, [2], "PD"),  # a new tumour outweighs
        ([(1, 50.0)], [(1, 50.0), (2, 9.0)], {1: 1}, [2], "SD"),  # too small to be unequivocal
        ([(1, 9.0)], [(1, 20.0)], {1: 1}, [], "NE"),
    ],
)
def test_recist_keeps_its_own_rules(before: Any, now: Any, became: Any, new: list[int], category: str) -> None:
    answer = recist([tumour(*x) for x in before], [tumour(*x) for x in now], became, new, slice_mm=3.0)
    assert answer["category"] == category, answer["reason"]


def test_targets_are_large_few_and_no_cysts() -> None:
    many = [tumour(n, 60 - n) for n in range(4)] + [tumour(9, 99, kind="cyst"), tumour(5, 30, "liver")]
    assert [x["id"] for x in targets(many, 3.0)] == [0, 1, 5]
    assert [x["id"] for x in targets([tumour(1, 14), tumour(2, 17)], 8.0)] == [2]  # twice 8 mm slices
    assert len(targets([tumour(n, 50 + n, organ=f"organ {n}") for n in range(9)], 3.0)) == 5


def test_a_volume_doubles_in_its_doubling_time() -> None:
    assert doubling_days(1.0, 2.0, 90) == pytest.approx(90)
    assert doubling_days(2.0, 16.0, 90) == pytest.approx(30)
    assert doubling_days(2.0, 2.0, 90) is None and doubling_days(1.0, 2.0, None) is None


def test_thick_slices_bend_a_number_more() -> None:
    thin, thick = (volume_sd_ml(4.19, 20, 20, (t, 0.8, 0.8)) for t in (1.0, 8.0))
    assert thin < 0.1 * thick
    assert long_axis_sd_mm(20, (1, 0.8, 0.8)) < long_axis_sd_mm(20, (8, 0.8, 0.8))
    ball = {"long_axis_mm": 20.0, "short_axis_mm": 20.0, "volume_ml": 4.19}
    axis, volume = smallest_change(ball, ball, (5, 0.8, 0.8), (5, 0.8, 0.8))
    assert axis == pytest.approx(1.96 * math.sqrt(2) * long_axis_sd_mm(20, (5, 0.8, 0.8)))
    assert volume == pytest.approx(1.96 * math.sqrt(2) * volume_sd_ml(4.19, 20, 20, (5, 0.8, 0.8)))


def test_the_spread_of_real_balls_on_real_grids_is_what_the_formula_says() -> None:
    """64 offsets of a ball of 18 mm on 6 x 1.2 x 1.2 mm voxels."""
    rng, spacing, volumes = np.random.default_rng(0), np.array([6.0, 1.2, 1.2]), []
    index = np.stack(np.indices((7, 21, 21)), axis=-1) - [3, 10, 10]
    for offset in rng.uniform(-0.5, 0.5, (64, 3)):
        inside = (((index + offset) * spacing) ** 2).sum(axis=-1) <= 9.0**2
        volumes.append(inside.sum() * spacing.prod() / 1000)
    expected = volume_sd_ml(float(np.mean(volumes)), 18.0, 18.0, spacing.tolist())
    assert expected == pytest.approx(float(np.std(volumes)), rel=0.5)
