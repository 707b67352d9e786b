"""Pictures: which slice, which way up, how large, in which colours."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hilum.errors import GeometryError
from hilum.labels import SCHEMES
from hilum.pages.charts import Bar, bar_chart, curve_chart
from hilum.pages.figures import AGREED, INVENTED, MISSED, SWAPPED, Picture, case_rows, lesion_picture
from hilum.pages.slices import View, best_slices, body_box, grey, views, whole
from hilum.results.measure import measure
from hilum.volume import Volume

KITS = SCHEMES["kits"]


def spl(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    d, h, w = spacing_mm
    return Volume(array, np.array([[0, 0, -w, 0], [0, -h, 0, 0], [d, 0, 0, 0], [0, 0, 0, 1]], float))


def scan_and_labels() -> tuple[Volume, Volume]:
    """Soft tissue in air with one kidney on the patient's right, in front and near the head, and a tumour in it."""
    scan = np.full((20, 60, 80), -1000, np.int16)
    scan[:, 8:52, 10:70] = 40
    labels = np.zeros(scan.shape, np.uint8)
    labels[12:18, 14:24, 16:30] = 1
    labels[14:17, 16:21, 18:24] = 2
    scan[labels == 1] = 180
    return spl(scan, (5.0, 2.0, 2.0)), spl(labels, (5.0, 2.0, 2.0))


def opened(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


def close_to(rgb: np.ndarray, colour: str, within: int = 60) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(rgb - wanted).max(axis=-1) < within


def test_letters_and_directions_agree_in_all_planes() -> None:
    scan, labels = scan_and_labels()
    for row in case_rows(scan, labels, KITS):
        bare = opened(row.pictures[0])
        bright = np.argwhere(bare[..., 0] > 180)
        height, width = bare.shape[:2]
        kidney = bright[(bright[:, 0] > 0.12 * height) & (bright[:, 0] < 0.88 * height)].mean(axis=0)
        if row.plane in ("axial", "coronal"):
            assert kidney[1] < width / 2, row.plane  # patient's right on the left
        if row.plane == "sagittal":
            assert kidney[1] < width / 2  # front on the left
        if row.plane == "axial":
            assert kidney[0] < height / 2  # front on top


@pytest.mark.parametrize("codes", ["RAS", "LPI", "IPL", "ASR"])
def test_pictures_do_not_depend_on_the_files_axis_order(codes: str) -> None:
    scan, labels = scan_and_labels()
    plain = case_rows(scan, labels, KITS, width=120)
    turned = case_rows(scan.oriented(codes), labels.oriented(codes), KITS, width=120)
    assert [[p.data for p in row.pictures] for row in turned] == [[p.data for p in row.pictures] for row in plain]


def test_head_is_up_in_coronal_and_sagittal() -> None:
    array = np.zeros((10, 8, 6), np.float32)
    array[9] = 1.0  # the highest slice
    for plane in ("coronal", "sagittal"):
        view = View(plane, 2, whole(array.shape), (1.0, 1.0, 1.0), 60)  # type: ignore[arg-type]
        assert view.cut(array)[0].min() == 1.0 and view.cut(array)[1:].max() == 0.0
        assert view.pixel((9, 0, 0))[1] < view.pixel((0, 0, 0))[1]
    axial = View("axial", 0, whole(array.shape), (1.0, 1.0, 1.0), 60)
    assert axial.pixel((0, 0, 0)) == (5.0, 5.0)


def test_pixels_are_square_whatever_the_spacing() -> None:
    box = ((0, 10), (0, 40), (0, 80))
    axial = View("axial", 0, box, (5.0, 2.0, 1.0), 160)
    coronal = View("coronal", 0, box, (5.0, 2.0, 1.0), 160)
    sagittal = View("sagittal", 0, box, (5.0, 2.0, 1.0), 160)
    assert axial.size == (160, 160) and coronal.size == (160, 100) and sagittal.size == (160, 100)
    assert axial.stretched(np.zeros((40, 80), np.float32)).shape == (160, 160)


def test_a_place_in_the_patient_is_drawn_where_the_voxel_is() -> None:
    array = np.zeros((12, 30, 40), np.float32)
    index = (7, 11, 29)
    array[index] = 1.0
    for plane, at in (("axial", 7), ("coronal", 11), ("sagittal", 29)):
        view = View(plane, at, ((2, 11), (5, 25), (10, 40)), (4.0, 1.0, 1.5), 200)  # type: ignore[arg-type]
        picture = view.stretched(view.cut(array))
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        x, y = view.pixel(index)
        assert (column + 0.5, row + 0.5) == pytest.approx((x, y), abs=1.0)


def test_the_window_is_soft_tissue() -> None:
    assert grey(np.array([-1000, -160, 40, 240, 3000])).tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_the_best_slice_has_the_largest_tumour_then_cyst_then_organs() -> None:
    labels = np.zeros((10, 10, 10), np.uint8)
    assert best_slices(labels, KITS) == (5, 5, 5)
    labels[2, 1:9, 1:9] = 1
    assert best_slices(labels, KITS)[0] == 2
    labels[4, 2:6, 2:6] = 3
    assert best_slices(labels, KITS)[0] == 4
    labels[7, 5:7, 3] = 2
    assert best_slices(labels, KITS) == (7, 6, 3)
    abdomen = np.zeros((10, 20, 20), np.uint8)  # a large liver below must not hide the kidneys
    abdomen[1:6] = 3
    abdomen[5, 2:4, 2:4], abdomen[5, 2:4, 9:11], abdomen[5, 9:11, 2:4] = 1, 2, 4
    assert best_slices(abdomen, SCHEMES["abdomen"])[0] == 5


def test_the_crop_is_the_body_without_the_table() -> None:
    scan, labels = scan_and_labels()
    array = scan.array.copy()
    array[:, 57:58, :] = 200  # a table behind
    (z0, z1), (y0, y1), (x0, x1) = body_box(scan.with_array(array))
    assert (z0, z1) == (0, 20) and 0 <= y0 <= 8 and 52 <= y1 <= 57 and 4 <= x0 <= 10 and 70 <= x1 <= 76
    tall = spl(np.repeat(labels.array, 4, axis=0), (5.0, 2.0, 2.0))
    for view in views(tall, KITS, whole(tall.shape), 100)[1:]:
        assert view.size[1] <= 1.21 * view.size[0]
        assert view.box[0][0] <= 48 and view.box[0][1] >= 72  # all of the labels


def test_without_a_truth_there_are_ct_segmentation_and_outlines() -> None:
    scan, labels = scan_and_labels()
    rows = case_rows(scan, labels, KITS, width=300)
    assert [row.plane for row in rows] == ["axial", "coronal", "sagittal"]
    assert [[p.title for p in row.pictures] for row in rows] == [["CT", "Segmentation", "Outlines"]] * 3
    assert rows[0].slices == 20 and rows[0].index == 15
    bare, filled, outlined = (opened(p) for p in rows[0].pictures)
    orange = KITS.label(2).colour
    assert not close_to(bare, orange).any() and close_to(outlined, orange).any()
    assert np.ptp(bare, axis=-1).max() < 12  # grey
    assert (np.ptp(filled, axis=-1) > 30).sum() > 3 * (np.ptp(outlined, axis=-1) > 30).sum()
    assert "kidney and tumour" in rows[0].pictures[1].alt


def test_the_overlay_tells_agreement_from_each_error() -> None:
    scan, truth = scan_and_labels()
    array = truth.array.copy()
    array[:, :, 16:18] = 0  # missed: the patient's right edge
    array[12:18, 30:38, 16:30] = 1  # invented: behind
    array[14:17, 19:21, 18:24] = 1  # tumour called kidney
    rows = case_rows(scan, truth.with_array(array), KITS, truth, width=480)
    assert [p.title for p in rows[0].pictures] == ["CT", "Truth", "Prediction", "Overlay"]
    overlay = opened(rows[0].pictures[3])
    for colour in (MISSED, INVENTED, SWAPPED):
        assert close_to(overlay, colour, 75).sum() > 50, colour
    invented = np.argwhere(close_to(overlay, INVENTED, 60)).mean(axis=0)
    missed = np.argwhere(close_to(overlay, MISSED, 75)).mean(axis=0)
    assert invented[0] > missed[0] and invented[1] > missed[1]
    same = opened(case_rows(scan, truth, KITS, truth, width=480)[0].pictures[3])
    assert not close_to(same, INVENTED, 35).any() and len({AGREED, MISSED, INVENTED, SWAPPED}) == 4


def test_labels_alone_and_an_empty_map_can_be_drawn() -> None:
    _, labels = scan_and_labels()
    rows = case_rows(None, labels, KITS, width=200)
    assert [p.title for p in rows[0].pictures] == ["Segmentation"]
    empty = labels.with_array(np.zeros_like(labels.array))
    assert [p.title for p in case_rows(None, empty, KITS, labels, width=200)[0].pictures] == [
        "Truth",
        "Prediction",
        "Overlay",
    ]
    assert "nothing" in case_rows(None, empty, KITS, width=200)[0].pictures[0].alt


def test_a_lesion_of_one_voxel_is_still_seen() -> None:
    labels = np.zeros((5, 40, 40), np.uint8)
    labels[2, 20, 20] = 2
    rows = case_rows(spl(np.zeros(labels.shape, np.int16), (2.0, 1.0, 1.0)), spl(labels, (2.0, 1.0, 1.0)), KITS)
    assert close_to(opened(rows[0].pictures[2]), KITS.label(2).colour, 70).sum() > 10


def test_volumes_on_other_grids_are_refused() -> None:
    scan, labels = scan_and_labels()
    with pytest.raises(GeometryError):
        case_rows(scan, labels.cropped((0, 0, 0), (10, 60, 80)), KITS)


def test_a_lesion_is_drawn_with_both_axes() -> None:
    scan, labels = scan_and_labels()
    lesion = measure(labels, KITS, scan)["lesions"][0]
    picture = lesion_picture(scan, labels, KITS, lesion)
    assert (picture.width, picture.height) == (420, 420)
    assert "tumour 1 of the right kidney" in picture.alt or "of the left kidney" in picture.alt
    assert "long axis 1" in picture.alt and picture.uri.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(picture.uri.split(",")[1]) == picture.data
    middle = opened(picture)[120:300, 120:300]
    assert (middle.min(axis=-1) > 225).sum() > 100  # the white lines
    assert lesion_picture(None, labels, KITS, lesion, width=200).width == 200


def test_a_whole_case_fits_a_page() -> None:
    rng = np.random.default_rng(0)
    scan = spl(rng.normal(40, 60, (40, 128, 128)).astype(np.int16), (3.0, 3.0, 3.0))
    labels = spl((rng.random((40, 128, 128)) > 0.999).astype(np.uint8), (3.0, 3.0, 3.0))
    data = sum(len(p.data) for row in case_rows(scan, labels, KITS, labels) for p in row.pictures)
    assert data < 2_500_000  # noise is the worst that a JPEG can meet


def test_charts_take_the_pages_colours_and_escape_names() -> None:
    bars = {
        "Kidney <b> & $x$": [Bar("Dice", 0.9, 0.8, 0.95, [0.7, 0.9]), Bar("IoU", 0.8)],
        "Tumour": [Bar("Dice", 0.0)],
    }
    svg = bar_chart(bars, 'Scores "of" <all>')
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    assert "currentColor" in svg and "var(--line)" in svg
    assert "http" not in svg and "<metadata" not in svg and "<style" not in svg and "<b>" not in svg
    assert "Kidney &lt;b&gt; &amp; $x$" in svg and "0.900" in svg
    curve = curve_chart({"a": ([0, 1, 2], [1.0, None, 0.5]), "$b_": ([0, 1, 2], [1, 2, 3])}, "Loss", across="x", up="y")
    assert "肝臓" in bar_chart({"肝臓": [Bar("Dice", 0.5)]}, "肝臓")
    assert "$b_" in curve and "http" not in curve
    ids = [part.split('"')[0] for text in (svg, curve) for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
