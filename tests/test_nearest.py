"""Nearest points of a grid: every one of the three searches against the exact transform."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hilum.judge import nearest
from hilum.judge.nearest import Spacing, both_ways


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    nearest._steps.cache_clear()
    yield
    nearest._steps.cache_clear()


def exact(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    forth, back = (ndimage.distance_transform_edt(~other, sampling=spacing) for other in (second, first))
    return forth[first], back[second]


def found(
    first: np.ndarray, second: np.ndarray, spacing: Spacing, up_to_mm: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    return both_ways(np.flatnonzero(first), np.flatnonzero(second), first.shape, spacing, up_to_mm=up_to_mm)


def specks(shape: tuple[int, int, int], *shares: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random(shape) < share for share in shares]


@pytest.mark.parametrize("searches", [(1, 0), (1, 1200), (300, 1200)], ids=["tree", "lines", "all"])
@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (5.0, 0.85, 0.85), (0.7, 2.0, 3.0), (2.0, 0.7, 3.0), (300.0, 300.0, 0.1)], ids=str
)
def test_each_search_agrees_with_the_exact_transform(
    searches: tuple[int, int], spacing: Spacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in zip(("STEPS", "LINES"), searches, strict=True):
        monkeypatch.setattr(nearest, name, count)
    for shares in ((0.01, 0.003), (0.05, 0.0003)):
        first, second = specks((14, 23, 31), *shares)
        for mm, want in zip(found(first, second, spacing), exact(first, second, spacing), strict=True):
            np.testing.assert_allclose(mm, want, rtol=1e-14)


def test_the_searches_are_really_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    lines, tree = nearest._Lines.search, nearest._tree_mm
    monkeypatch.setattr(nearest._Lines, "search", lambda *args: asked.append("lines") or lines(*args))
    monkeypatch.setattr(nearest, "_tree_mm", lambda *args: asked.append("tree") or tree(*args))
    near, far = np.zeros((2, 62, 62, 300), bool)
    near[1:61, 1:61, :9] = far[1:61, 1:61, 1:9] = True
    assert max(map(np.max, found(near, far, (1.0, 1.0, 1.0)))) == 1
    assert asked == []
    far[1:61, 1:61, 13] = True
    assert found(near, far, (1.0, 1.0, 1.0))[1].max() == 5
    assert asked == ["lines"]
    monkeypatch.setattr(nearest, "LINES", 1)
    assert found(near, far, (1.0, 1.0, 1.0))[1].max() == 5
    assert asked == ["lines", "lines", "tree"]


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.sampled_from((0.1, 0.5, 0.8, 1.0, 3.0, 40.0))] * 3),
    st.integers(0, 10**6),
    st.sampled_from((0.0, 0.5, 1.0, 2.5, 9.0, 200.0)),
)
@settings(max_examples=60, deadline=None)
def test_below_a_limit_nothing_lacks(shape: tuple[int, int, int], spacing: Spacing, seed: int, up_to_mm: float) -> None:
    first, second = specks(shape, 0.4, 0.2, seed=seed)
    if not first.any() or not second.any():
        assert all(np.isinf(mm).all() for mm in found(first, second, spacing))
        return
    limited, whole = found(first, second, spacing, up_to_mm), exact(first, second, spacing)
    for mm, want in zip(limited, whole, strict=True):
        below = want <= up_to_mm
        np.testing.assert_allclose(mm[below], want[below], rtol=1e-14)
        assert (mm[~below] > up_to_mm).all()


def test_dense_far_surfaces_give_up_walking_within_a_limit() -> None:
    first, second = np.zeros((2, 3, 40, 40), bool)
    first[1, :, 5], second[1, :, 30] = True, True
    for limit in (25.0, 1000.0):
        assert all((mm == 25).all() for mm in found(first, second, (9.0, 1.0, 1.0), limit))
    assert all(np.isinf(mm).all() for mm in found(first, second, (9.0, 1.0, 1.0), 24.0))
