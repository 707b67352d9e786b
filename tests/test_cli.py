"""The command line is a contract: verbs, help, exit codes, and how fast it starts."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hilum.cli import main

VERBS = ["demo", "data", "train", "recipes", "study", "segment", "evaluate", "compare", "measure", "report", "model"]
LEAVES = [[v] for v in VERBS if v not in ("data", "model")] + [
    ["data", "list"],
    ["data", "fetch"],
    ["data", "verify"],
    ["data", "split"],
    ["data", "folds"],
    ["data", "explore"],
    ["data", "slices"],
    ["data", "stack"],
    ["data", "phantom"],
    ["data", "paint"],
    ["model", "list"],
    ["model", "show"],
    ["model", "import"],
    ["model", "export"],
]


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['hilum', '--help']\n"
        "from hilum.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'numpy', 'nibabel', 'SimpleITK', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.4


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_verb_teaches_itself_with_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"example:\n  hilum {' '.join(words)}" in text and "--json" in text and "exit codes" in text


def test_no_verb_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS) and "not a medical device" in text


@pytest.mark.parametrize(
    "words",
    [["segmnt"], ["train"], ["segment", "x.nii"], ["data"], ["evaluate", "--missing", "maybe"]],
    ids=" ".join,
)
def test_wrong_words_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "nowhere.toml", "--out", "x"], "nowhere.toml: no such recipe"),
        (["train", "demo", "--data", "folder", "--out", "x"], "wanted NAME=PATH"),
        (["train", "demo", "--set", "training.stepz=1", "--out", "x"], "did you mean 'training.steps'"),
        (["model", "show", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence_and_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("hilum: ") and error.count("\n") == 1 and "Traceback" not in error


def test_warnings_are_lines_on_standard_error_each_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("hilum.prepare.plan")

    def describe() -> dict[str, str]:
        for _ in range(2):
            log.warning("no case holds label %s", "cyst")
        log.info("nothing to tell")
        return {"folder": "pairs"}

    monkeypatch.setattr("hilum.datasets.describe", describe)
    handlers = list(logging.getLogger("hilum").handlers)
    assert main(["data", "list"]) == 0
    told = capsys.readouterr()
    assert told.err == "warning: no case holds label cyst\n" and told.out == "folder       pairs\n"
    assert logging.getLogger("hilum").handlers == handlers


def test_paths_of_any_script_reach_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "default", "--data", 'folder=/nowhere/\U0001f642 "x"', "--out", "y"]) == 1
    assert '/nowhere/\U0001f642 "x"' in capsys.readouterr().err


def test_lists_answer_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    assert "folder" in capsys.readouterr().out
    assert main(["recipes", "--json"]) == 0
    assert "demo" in json.loads(capsys.readouterr().out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_is_one_sentence(more: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hilum", "data", "list", *more]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "hilum: standard output: the disk is full; free some space and run the same command again"
    ]


def test_a_reader_that_went_away_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-m", "hilum", "data", "list"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")
