"""--max-memory is a promise: planned, said, kept, and without influence on the results."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.inference.memory import _member, network_bytes, parse_memory, plan_memory, traced_bytes
from hilum.inference.predict import Predictor
from hilum.inference.source import TileSource
from hilum.patches.tiles import tile_starts
from hilum.pipeline import segment
from hilum.prepare.conventions import Conventions
from hilum.prepare.preprocess import prepare_scan, stream_scan
from hilum.prepare.resample import ImageSlabs, resample_image
from hilum.scans import write_scan
from hilum.scans.peek import Peek, peek
from threshold_model import blocks, grid_of, make_plan, scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return threshold_model(tmp_path_factory.mktemp("models") / "m", patch=(16, 32, 32), spacing_mm=(1.5, 1.2, 1.2))


def test_amounts():
    assert parse_memory("3GB") == 3e9 and parse_memory(" 2.5 GiB ") == 2.5 * 2**30 and parse_memory("800mb") == 8e8
    for text in ("", "3", "GB", "-1GB", "0MB", "3 cubits"):
        with pytest.raises(UsageError, match="such as 3GB"):
            parse_memory(text)


@pytest.mark.parametrize("separate", [False, True])
def test_any_slices_of_a_scan_are_those_of_the_whole(separate):
    image = np.random.default_rng(0).integers(-1000, 1000, (61, 20, 17)).astype(np.int16)
    for shape in ((90, 13, 25), (61, 20, 17), (31, 20, 30)):
        whole = resample_image(image, shape, separate_z=separate, dtype=np.int16)
        slabs = ImageSlabs(image, shape, separate_z=separate, dtype=np.int16)
        for first, last in ((0, 3), (20, 30), (shape[0] - 1, shape[0]), (5, shape[0])):
            some = np.empty((last - first, *shape[1:]), np.int16)
            slabs.fill(some, first)
            assert np.array_equal(some, whole[first:last])


@pytest.mark.parametrize("shape", [(70, 40, 33), (3, 5, 40), (1, 1, 1)])
def test_tiles_are_the_same_however_they_are_prepared(shape):
    plan = make_plan((16, 12, 16), (1.7, 1.3, 1.1))
    scan = scan_of(blocks(shape), SPACING_MM, "LAS")
    sources = [TileSource(case, plan.patch) for case in (prepare_scan(scan, plan), stream_scan(scan, plan))]
    assert sources[0].shape == sources[1].shape
    for start in tile_starts(sources[0].shape, plan.patch, 0.5):
        one, other = (source.tile(start) for source in sources)
        assert one.dtype == np.int16 and one.shape == plan.patch and np.array_equal(one, other)


def test_the_result_does_not_depend_on_the_way(model):
    predictor = Predictor(model, "cpu")
    scan = scan_of(blocks((61, 47, 90)), SPACING_MM, "RPI")
    whole, streamed = (predictor.predict(predictor.prepare(scan, streamed=way)) for way in (False, True))
    assert whole.labels.array.any() and np.array_equal(whole.labels.array, streamed.labels.array)


def test_headers_tell_what_will_be_read(tmp_path):
    scan = scan_of(blocks((5, 6, 7)), SPACING_MM, "LPS")
    write_scan(tmp_path / "a.nii.gz", scan)
    facts = peek(tmp_path / "a.nii.gz")
    assert facts is not None and facts.grid.same_as(scan.grid) and (facts.reading_bytes, facts.kept_bytes) == (2, 2)
    (tmp_path / "b.nii.gz").write_bytes(b"nothing")
    assert peek(tmp_path / "b.nii.gz") is None and peek(tmp_path / "none.nrrd") is None


def test_more_slices_need_what_their_own_arrays_need(model):
    predictor = Predictor(model, "cpu")
    plans = [
        plan_memory(predictor, {"a": Peek(grid_of((n, 512, 512), SPACING_MM), 2, 2)}).stages["a"] for n in (200, 1000)
    ]
    grown = (plans[1]["predict"] - plans[0]["predict"]) / (800 * 512 * 512)
    assert grown == pytest.approx(3, abs=0.01)  # int16 in, uint8 out


def test_fractions_of_hu_take_twice_the_room(model):
    facts = Peek(grid_of((400, 300, 300), SPACING_MM), 2, 2)
    whole = Predictor(model, "cpu")
    fine = Predictor(replace(model, plan=replace(model.plan, conventions=Conventions(rounded=False))), "cpu")
    for streamed in (False, True):
        prepared = [_member(one, facts, streamed, False)["prepared"] for one in (whole, fine)]
        assert prepared[1] == 2 * prepared[0] > 0
    assert prepare_scan(scan_of(blocks((9, 8, 7)), SPACING_MM), fine.plan).image_DHW.dtype == np.float32
    masked = replace(model.plan, conventions=Conventions(intensities="scan_nonzero"))
    plans = [plan_memory(Predictor(one, "cpu"), {"a": facts}) for one in (model, replace(model, plan=masked))]
    more = [plans[1].stages["a"][stage] - plans[0].stages["a"][stage] for stage in ("prepare", "predict")]
    assert more == [4 * 400 * 300 * 300] * 2


def test_a_cascade_is_planned_with_what_the_model_before_it_found(model):
    facts = Peek(grid_of((400, 300, 300), SPACING_MM), 2, 2)
    alone, second = Predictor(model, "cpu"), Predictor(model, "cpu")
    second.first = alone
    more = _member(second, facts, True, False)["prepared"] - _member(alone, facts, True, False)["prepared"]
    assert more == math.prod(
        prepare_scan(scan_of(np.zeros((400, 300, 300), np.uint8), SPACING_MM), model.plan).grid.shape
    )


def test_planning_reads_no_voxel(model, monkeypatch):
    """A scan's own box and intensities are known only when it is read: the plan takes the largest."""
    monkeypatch.setattr("hilum.prepare.preprocess.own_intensities", None)
    plan = replace(model.plan, conventions=Conventions(intensities="scan", crop="nonzero"))
    facts = Peek(grid_of((400, 300, 300), SPACING_MM), 2, 2)
    assert plan_memory(Predictor(replace(model, plan=plan), "cpu"), {"a": facts}).planned_bytes > 0


def test_the_least_that_would_do_does(model):
    predictor = Predictor(model, "cpu")
    scans = {f"c{n}": Peek(grid_of((300, 512, 512), SPACING_MM), 2, 2) for n in range(3)}
    with pytest.raises(UsageError, match=r"0.10 GB of memory do not do for c\d .* at least (.*) GB"):
        plan_memory(predictor, scans, limit_bytes=1e8)
    free, tight = (plan_memory(predictor, scans, limit_bytes=limit) for limit in (1e12, None))
    assert free.way.together and tight.way.together
    alone = max(max(table.values()) for table in free.stages.values()) + free.base_bytes
    single = plan_memory(predictor, scans, limit_bytes=alone + 3e7)
    assert not single.way.together and "one scan at a time" in single.describe()


def test_networks_are_counted_without_being_run(model):
    predictor = Predictor(model, "cpu")
    small, large = (traced_bytes(predictor, (1, 1, n, 16, 16)) for n in (16, 32))
    assert large == pytest.approx(2 * small, rel=0.1) and network_bytes(predictor) > small


@pytest.mark.slow
def test_the_promise_is_kept(tmp_path, model):
    """In a process of its own: the highest memory that the system saw stays below, and the labels are the same."""
    for number in range(2):
        classes = np.zeros((120, 200, 220), np.uint8)
        classes[30:80, 60:110, 40 : 80 + number] = 1
        classes[40:60, 70:90, 50:60] = 2
        write_scan(tmp_path / f"c{number}.nii.gz", scan_of(classes, SPACING_MM, "RAS"))
    code = (
        f"import sys, json, resource; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "import torch; torch.set_num_threads(1)\n"
        "from hilum.pipeline import segment\n"
        f"segment([{str(tmp_path / '*.nii.gz')!r}], {str(model.folder)!r}, sys.argv[1], device='cpu',"
        " max_memory=sys.argv[2])\n"
        "print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))\n"
    )
    peaks = {}
    for limit in ("900MB", "4GB"):
        words = [sys.executable, "-c", code, str(tmp_path / limit), limit]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[limit] = json.loads(done.stdout.splitlines()[-1])
        assert peaks[limit] <= parse_memory(limit)
    for number in range(2):
        files = [tmp_path / limit / f"c{number}" / "labels.nii.gz" for limit in peaks]
        assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UsageError, match="at least"):
        segment([tmp_path / "c0.nii.gz"], model, tmp_path / "no", device="cpu", max_memory="50MB")
    assert not (tmp_path / "no" / "c0").exists()
