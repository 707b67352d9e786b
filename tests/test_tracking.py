"""The log of a run, and its numbers by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hilum.training.tracking import Epoch, Log, PatchDice, read_log


def test_log_drops_cut_lines_and_what_will_be_said_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.begin({"torch": "2"})
    for step in (1, 2, 3):
        log.write({"epoch": step, "step": step, "loss": float("nan")})
    with open(log.path, "a") as file:
        file.write('{"epoch": 4, "st')
    log.go_on(2, {"torch": "3"})
    lines = read_log(log.path)
    assert [line.get("epoch") for line in lines] == [None, 1, 2, None]
    assert lines[1]["loss"] is None and lines[3] == {"resumed": {"torch": "3"}, "step": 2}


def test_patch_dice_by_hand() -> None:
    pooled = PatchDice(["kidney", "tumour", "cyst"])
    truth = torch.tensor([[0, 1, 1, 2]])
    guess = torch.tensor([[0, 1, 2, 2]])
    pooled.add(truth, torch.nn.functional.one_hot(guess, 4).movedim(-1, 1).float())
    pooled.add(truth[:, :2], torch.nn.functional.one_hot(truth[:, :2], 4).movedim(-1, 1).float())
    assert pooled.scores() == {"kidney": pytest.approx(4 / 5), "tumour": pytest.approx(2 / 3), "cyst": None}


def test_epoch_numbers_by_hand() -> None:
    epoch = Epoch()
    epoch.add(1.0, 2.0, 0.5)
    epoch = Epoch(json.loads(json.dumps(epoch.to_json())))
    epoch.add(2.0, 2.0, 1.5)
    assert epoch.line(batch=4) == {"loss": 1.5, "epoch_seconds": 4.0, "data_wait": 0.5, "patches_per_second": 2.0}
