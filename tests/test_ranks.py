"""Several processes of one run: the losses of one process with all their batches, and faults that are said."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hilum.model import load_model
from hilum.patches.batches import Batches
from hilum.progress import SILENT
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.loop import train
from hilum.training.ranks import Ranks, from_environment, over_ranks
from hilum.training.setup import set_up
from making_runs import losses, make_cases, one_thread, recipe

__all__ = ["one_thread"]  # a fixture that works by itself

RANK = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from hilum import device
    from hilum.datasets import CaseRef, Dataset
    from hilum.labels import SCHEMES
    from hilum.training.loop import train
    from making_runs import recipe
    device.cpu_count = lambda *_: 1
    asked = recipe(**eval(sys.argv[4]))
    asked = replace(asked, network=replace(asked.network, head=sys.argv[5]))
    files = [(f"case{i}", Path(sys.argv[2]) / f"case{i}_image.nii.gz", Path(sys.argv[2]) / f"case{i}_labels.nii.gz")
             for i in range(4)]
    cases = tuple(CaseRef(*file, f"patient{i}") for i, file in enumerate(files))
    train(asked, Dataset("cubes", cases, SCHEMES["lits"]), Path(sys.argv[3]), device="cpu")
"""


def start(world: int, data: Path, out: Path, training: dict[str, Any], head: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", textwrap.dedent(RANK), str(Path(__file__).parent), str(data), str(out)]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
    }
    return [
        subprocess.Popen(
            [*words, repr(training), head],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    said = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


@pytest.mark.parametrize("head", ["labels", "regions"])
def test_two_ranks_learn_as_one_with_twice_the_batch(tmp_path: Path, head: str) -> None:
    data, steps = tmp_path / "cubes", {"steps": 4, "optimizer": "sgd", "learning_rate": 0.05}
    dataset = make_cases(data, 4)
    for code, text in finish(start(2, data, tmp_path / "two", steps, head)):
        assert code == 0, text
    asked = recipe(**steps)
    asked = replace(asked, prepare=replace(asked.prepare, batch=4), network=replace(asked.network, head=head))
    train(asked, dataset, tmp_path / "one", device="cpu")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-5)
    first, second = (load_model(tmp_path / name / "model").weights[0] for name in ("one", "two"))
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=2e-3, atol=2e-5)
    # a checkpoint of two ranks goes on with one
    more = replace(recipe(**{**steps, "steps": 6}), network=asked.network)
    assert train(more, dataset, tmp_path / "two", device="cpu").steps == 6


def test_a_rank_that_is_killed_is_said_by_the_other_and_the_checkpoint_is_kept(tmp_path: Path) -> None:
    data, out = tmp_path / "cubes", tmp_path / "run"
    make_cases(data, 4)
    first, second = start(2, data, out, {"steps": 10_000, "checkpoint_minutes": 0.0}, "labels")
    while len(losses(out)) < 3:
        assert first.poll() is None and second.poll() is None
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    _, said = first.communicate(timeout=100)
    second.communicate()
    assert (
        first.returncode == 1 and "another rank of this run has gone" in said and "run the same command again" in said
    )
    facts = checkpoint_facts(out / "checkpoint")
    assert facts is not None and facts["step"] >= 2


def test_ranks_cut_the_items_of_one_larger_batch(tmp_path: Path) -> None:
    asked = recipe()
    dataset = make_cases(tmp_path / "cubes", 4)
    setup = set_up(asked, dataset, tmp_path / "run", 0, 1, SILENT)
    common = (setup.store, setup.training, setup.plan, asked.patches, setup.scheme, "cpu", 3)
    parts = []
    for rank in range(2):
        with Batches(*common, rank=rank, world=2) as batches:
            parts.append(batches.batch(5))
    whole = (*common[:2], replace(setup.plan, batch=4), *common[3:])
    with Batches(*whole) as batches:
        together = batches.batch(5)
    assert torch.equal(torch.cat([part.images for part in parts]), together.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), together.labels)


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    ranks = from_environment()
    assert ranks == Ranks() and ranks.is_first
    assert ranks.agree(0.5, 2.0) == (0.5, 2.0) and ranks.mean(3.0) == ranks.largest(3.0) == 3.0
    assert over_ranks(torch.ones(2, 3))[0].tolist() == [2.0] * 3
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert from_environment() == Ranks(3, 4, 0, 1)
