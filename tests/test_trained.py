"""Training cases out of models, runs, folds and lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.datasets.folds import write_folds
from hilum.errors import DatasetError, InputError, UsageError
from hilum.judge.trained import read_trained


def test_a_model_and_a_run_say_it_on_the_card(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "model.json").write_text(json.dumps({"card": {"trained_on": {"cases": ["a", "b"]}}}))
    assert read_trained(model) == read_trained(tmp_path / "run") == ("a", "b")
    (model / "model.json").write_text(json.dumps({"card": {"trained_on": "KiTS"}}))
    with pytest.raises(InputError, match="does not name the training cases"):
        read_trained(model)
    with pytest.raises(InputError, match="holds no model"):
        read_trained(tmp_path)


def test_folds_without_the_one_held_out(tmp_path: Path) -> None:
    write_folds(tmp_path / "folds.json", (("a", "b"), ("c",), ("d",)))
    assert read_trained(tmp_path / "folds.json", 1) == ("a", "b", "d")
    assert read_trained(tmp_path / "folds.json") == ("a", "b", "c", "d")
    with pytest.raises(UsageError, match="fold 3"):
        read_trained(tmp_path / "folds.json", 3)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DatasetError, match="no file of folds"):
        read_trained(tmp_path / "other.json")


@pytest.mark.parametrize("text", ["a\nb\n", "case,site\na,x\n\nb,y\n", "\ufeff# seen\na\r\nb"])
def test_lists(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert read_trained(tmp_path / "list.txt") == ("a", "b")


def test_lists_that_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# none\n")
    with pytest.raises(InputError, match="names no case"):
        read_trained(tmp_path / "list.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_trained(tmp_path / "absent.txt")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_trained(tmp_path / "bytes.csv")
