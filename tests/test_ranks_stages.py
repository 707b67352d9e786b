"""Several stages under ``torchrun``: each is a training of its own, whose ranks meet anew."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from hilum.config import CascadeOptions, LocatorOptions, Recipe, to_toml
from hilum.model import load_model
from hilum.training.loop import train
from making_runs import losses, make_cases, one_thread, recipe

__all__ = ["one_thread"]  # a fixture that works by itself

FIRST = ("first/without_0_1", "first/without_0_2", "first/without_0", "")
ONE_IS_LATE = """
    import os, time
    from torch import distributed, ones
    from hilum.training.ranks import together
    for number in range(3):
        if os.environ["RANK"] == os.environ["LATE"]:
            time.sleep(0.7)
        with together("cpu") as ranks:
            both = ones(1) * number
            distributed.all_reduce(both)
            assert float(both) == 2 * number
            ranks.wait()
            if os.environ["RANK"] == os.environ["LATE"]:
                time.sleep(0.5)
"""


def torchrun(*words: str, **environment: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    run = subprocess.run([*command, *words], env=surroundings, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr[-3000:]


def stages(kind: str, batch: int) -> Recipe:
    made: Recipe = recipe(steps=2, validation_cases=0, optimizer="sgd", learning_rate=0.05)
    made = replace(made, prepare=replace(made.prepare, batch=batch))
    if kind == "locator":
        options = LocatorOptions(spacing_mm=2.0, patch=(8, 8, 8), base_features=4, steps=2, batch=batch, margin_mm=4.0)
        return replace(made, locator=options)
    first = CascadeOptions(use="always", spacing_mm=(2.0, 2.0, 2.0), patch=(8, 8, 8), steps=2)
    return replace(made, cascade=first)


def test_ranks_meet_again_though_one_is_late(tmp_path: Path) -> None:
    """It did not: a rank that came early met in what was left of the group before, and waited for hours."""
    (tmp_path / "ranks.py").write_text(textwrap.dedent(ONE_IS_LATE))
    torchrun(str(tmp_path / "ranks.py"), LATE="0")


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("locator", ("locator", "")),
        pytest.param("cascade", FIRST, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_train_all_stages_as_one_with_twice_the_batch(
    tmp_path: Path, kind: str, parts: tuple[str, ...]
) -> None:
    dataset = make_cases(tmp_path / "data", 3)
    (tmp_path / "r.toml").write_text(to_toml(stages(kind, 2)))
    words = ["train", str(tmp_path / "r.toml"), "--data", f"folder={tmp_path / 'data'}", "--device", "cpu", "--quiet"]
    torchrun("-m", "hilum", *words, "--out", str(tmp_path / "two"))
    train(stages(kind, 4), dataset, tmp_path / "one", device="cpu")
    for part in parts:
        assert losses(tmp_path / "two" / part) == pytest.approx(losses(tmp_path / "one" / part), rel=1e-4), part
    inside = "locator" if kind == "locator" else "first"
    assert load_model(tmp_path / "two" / "model" / inside).plan.spacing_mm == (2.0, 2.0, 2.0)
    assert (tmp_path / "two" / "validation" / "scores.json").is_file()
