"""Scheduling: resumed, claimed, failed and killed runs; trials pruned and gone on with. The runs are fakes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hilum.config import read_recipe
from hilum.errors import HilumError, RecipeError, TrainingError, UsageError
from hilum.files import read_json
from hilum.phantom import write_set
from hilum.study import plan_study, read_study, run_study
from hilum.study.jobs import claim, differences
from hilum.study.running import Runner
from hilum.study.studying import dry_run
from hilum.study.tuning import open_search, without_password

FAKE = Path(__file__).with_name("fake_study_worker.py")
SEARCH = """
[tune]
trials = 5
startup = 1
region = "mass"
[tune.space]
"training.learning_rate" = { low = 1e-6, high = 1e-1, log = true }
"prepare.patch" = { choices = [[16, 16, 16], [32, 32, 32]] }
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_set(folder, 4, 5, shape=(12, 24, 24), spacing_mm=(26, 16, 16), workers=1)
    return folder


def study_file(folder: Path, data: Path, arms: str, more: str = "") -> Path:
    file = folder / "study.toml"
    head = f'name = "s"\nrecipe = "demo"\nsteps = 4\nfolds = [0, 1]\ndata = "phantom={data}"\n'
    file.write_text(f'{head}{more}\n[settings]\n"data.folds" = 2\n{arms}')
    return file


def fake(processes: int = 1) -> Runner:
    return Runner("cpu", processes, command=lambda file: [sys.executable, "-S", str(FAKE), str(file)])


def begun(out: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in (out / "runs").rglob("begun.txt"))


def arms(**described: str) -> str:
    return "".join(f'[arms.{name}]\ndescription = "{text}"\n' for name, text in described.items())


def test_failed_runs_are_listed_others_go_on_and_only_they_run_again(phantoms: Path, tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path, phantoms, arms(good="", bad="fails", dead="dies")))
    out = tmp_path / "out"
    answer = run_study(study, out, runner=fake())
    assert answer["exit_code"] == 1 and begun(out) == 6
    rows = {row["arm"]: row for row in answer["arms"]}
    assert rows["good"]["folds"] == [0, 1] and rows["good"]["failed"] == {}
    assert rows["good"]["train_seconds"] == 1.5 and rows["good"]["memory_gb"] == 0.5
    assert rows["bad"]["failed"] == {"0": "no such luck", "1": "no such luck"}
    assert "killed (signal 9)" in rows["dead"]["failed"]["0"]
    assert "failed: bad on phantom, fold 1: no such luck" in answer["text"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "no such luck" in page and "not a medical device" in page
    run_study(study, out, runner=fake())
    assert begun(out) == 10  # the two good ones were done


def test_arms_may_be_added_but_not_changed(phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(read_study(study_file(tmp_path, phantoms, arms(a=""))), out, runner=fake())
    run_study(read_study(study_file(tmp_path, phantoms, arms(a="other words", b=""))), out, runner=fake(2))
    assert begun(out) == 4
    changed = study_file(tmp_path, phantoms, arms(a="") + '"training.ema" = 0.5\n' + arms(b=""))
    with pytest.raises(RecipeError, match=r"a on phantom \(training.ema was 0.99 and is 0.5\)") as error:
        run_study(read_study(changed), out, runner=fake())
    assert "b on phantom" not in str(error.value)
    changed.write_text(changed.read_text().replace("steps = 4", "steps = 5").replace('"training.ema" = 0.5\n', ""))
    with pytest.raises(RecipeError, match=r"training.steps was 4 and is 5"):
        plan_study(read_study(changed), out)
    assert begun(out) == 4


def test_a_run_that_another_process_holds_is_waited_for_and_not_done_twice(phantoms: Path, tmp_path: Path) -> None:
    study, out = read_study(study_file(tmp_path, phantoms, arms(a="", b=""))), tmp_path / "out"
    held = plan_study(study, out).jobs[0]
    other = fake()

    def finish() -> None:
        with claim(held.folder) as mine:
            assert mine is not None
            ready.set()
            time.sleep(1.0)
        assert other.run(held) is not None

    ready = threading.Event()
    thread = threading.Thread(target=finish)
    thread.start()
    ready.wait()
    assert fake().run(held) is None  # not while it is held
    answer = run_study(study, out, runner=fake())
    thread.join()
    assert begun(out) == 4 and answer["exit_code"] == 0


def test_a_claim_is_one_process_s_and_ends_with_it(tmp_path: Path) -> None:
    with claim(tmp_path / "run") as first, claim(tmp_path / "run") as second:
        assert first is not None and second is None
    with claim(tmp_path / "run") as again:
        assert again is not None


def test_a_signal_stops_the_runs_and_says_how_to_go_on(phantoms: Path, tmp_path: Path) -> None:
    study, out = read_study(study_file(tmp_path, phantoms, arms(a="slow"))), tmp_path / "out"

    def ask() -> None:
        while not list(out.rglob("runs/*/a/fold_0/begun.txt")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(TrainingError, match=r"stopped by SIGTERM.*run the same command again"):
        run_study(study, out, runner=fake())
    assert not list(out.rglob("runs/*/a/fold_0/result.json"))


def test_cases_that_cannot_be_prepared_fail_their_runs(phantoms: Path, tmp_path: Path) -> None:
    study, out = read_study(study_file(tmp_path, phantoms, arms(a=""))), tmp_path / "out"
    runner = Runner("cpu", command=lambda file: [sys.executable, "-c", "raise SystemExit(3)"])
    answer = run_study(study, out, runner=runner)
    assert answer["exit_code"] == 1 and "ended with code 3" in answer["arms"][0]["failed"]["0"]


@pytest.mark.parametrize(
    ("more", "arm", "sentence"),
    [
        ('metric = "dise"', "", "did you mean 'dice'"),
        ('protocol = "kits24"', "", "kits24"),
        ("", '"network.name" = "u_net"', "no network 'u_net'"),
        ("", '"training.learning_rte" = 1', "did you mean 'training.learning_rate'"),
        ("", 'recipe = "nowhere"', "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    phantoms: Path, tmp_path: Path, more: str, arm: str, sentence: str
) -> None:
    file = study_file(tmp_path, phantoms, f"[arms.a]\n{arm}\n", more)
    with pytest.raises(HilumError) as error:
        run_study(read_study(file), tmp_path / "out", runner=fake())
    assert sentence in str(error.value) and error.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_data_and_folds_must_be_there(phantoms: Path, tmp_path: Path) -> None:
    file = study_file(tmp_path, phantoms, "[arms.a]\n")
    file.write_text(file.read_text().replace("folds = [0, 1]", "folds = [0, 2]"))
    with pytest.raises(RecipeError, match=r"folds \[2\].*0 to 1.*\"data.folds\" = 3"):
        plan_study(read_study(file), tmp_path / "out")
    (tmp_path / "bare.toml").write_text("[arms.a]\n")
    with pytest.raises(UsageError, match="--data folder="):
        plan_study(read_study(tmp_path / "bare.toml"), tmp_path / "out")


def test_sides_are_split_once_for_all_runs(phantoms: Path, tmp_path: Path) -> None:
    file = study_file(tmp_path, phantoms, arms(a="", b=""))
    file.write_text(file.read_text().replace("[settings]", '[settings]\n"data.split_sides" = true'))
    study, out = read_study(file), tmp_path / "out"
    assert plan_study(study, out).jobs[0].recipe.data.split_sides and not out.exists()
    run_study(study, out, runner=fake())
    labels = out / "sides" / "phantom" / "labels"
    before = {path.name: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")}
    assert len(before) == 4 and begun(out) == 4
    recipes = [read_json(job)["recipe"] for job in out.rglob("job.json")]
    assert len(recipes) == 5  # four runs and the cases prepared for them
    for recipe in recipes:
        assert recipe["data"]["path"] == str(out / "sides" / "phantom") and not recipe["data"]["split_sides"]
        assert {"right kidney", "left kidney"} <= {label["name"] for label in recipe["labels"]["labels"]}
    run_study(study, out, runner=fake())
    assert begun(out) == 4 and before == {path.name: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")}
    assert "2 done already" not in (told := dry_run(study, out)["text"]) and "4 done already" in told


def test_a_search_prunes_reports_and_writes_each_recipe(phantoms: Path, tmp_path: Path) -> None:
    study, out = read_study(study_file(tmp_path, phantoms, SEARCH)), tmp_path / "out"
    tuned = run_study(study, out, runner=fake())["tune"]
    states = [one["state"] for one in tuned["trials"]]
    assert len(states) == 5 and states.count("pruned") >= 1 and states.count("complete") >= 2
    for one in tuned["trials"]:
        recipe = read_recipe(one["recipe"])
        assert recipe.training.learning_rate == one["values"]["training.learning_rate"]
        assert list(recipe.prepare.patch) == one["values"]["prepare.patch"]
        folds = len(list((out / "tune" / one["name"]).glob("fold_*")))
        assert folds == (2 if one["state"] == "complete" else 1) == len(one["fold_scores"])
    best = max((one for one in tuned["trials"] if one["value"] is not None), key=lambda one: one["value"])
    assert tuned["best"] == best and best["value"] == pytest.approx(sum(best["fold_scores"]) / 2)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "[arms.tuned]" in page and "training.learning_rate" in page and "a little too kind" in page
    again = run_study(study, out, runner=fake())["tune"]
    assert [one["values"] for one in again["trials"]] == [one["values"] for one in tuned["trials"]]


def test_the_same_seed_searches_the_same_way_and_an_interrupted_search_goes_on(phantoms: Path, tmp_path: Path) -> None:
    file = study_file(tmp_path, phantoms, SEARCH)
    whole = run_study(read_study(file), tmp_path / "whole", runner=fake())["tune"]
    file.write_text(file.read_text().replace("trials = 5", "trials = 3"))
    run_study(read_study(file), tmp_path / "parts", runner=fake())
    file.write_text(file.read_text().replace("trials = 3", "trials = 5"))
    study = read_study(file)
    plan = plan_study(study, tmp_path / "parts")
    left = open_search(study, plan.datasets, tmp_path / "parts")
    trial = left._next()  # begun, and then the process was killed
    assert trial is not None and trial.number == 3
    parts = run_study(study, tmp_path / "parts", runner=fake())["tune"]
    told = [[one["values"], one["value"], one["state"]] for one in parts["trials"]]
    assert told == [[one["values"], one["value"], one["state"]] for one in whole["trials"]]


def test_a_failed_trial_is_listed_and_the_search_goes_on(phantoms: Path, tmp_path: Path) -> None:
    more = SEARCH.replace("trials = 5", "trials = 4").replace(
        "[tune.space]", '[tune.space]\ndescription = { choices = ["fails", ""] }'
    )
    answer = run_study(read_study(study_file(tmp_path, phantoms, more)), tmp_path / "out", runner=fake(2))
    tuned = answer["tune"]
    failed = [one for one in tuned["trials"] if one["state"] == "fail"]
    assert len(tuned["trials"]) == 4 and failed and answer["exit_code"] == 1
    assert all(one["error"] == "no such luck" for one in failed)
    assert set(tuned["failed"]) == {one["name"] for one in failed}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("startup = 1", 'storage = "postgresql+nothing://me:secret@nowhere/x"', "storage of Optuna cannot be reached"),
        ("startup = 1", 'storage = "sqlite:////nowhere/at/all.db"', "storage of Optuna cannot be reached"),
        ('region = "mass"', 'region = "massive"', "did you mean 'mass'"),
        ('region = "mass"', 'metric = "volume_gt_ml"', "has no better side"),
        ("training.learning_rate", "training.learning_rat", "did you mean 'training.learning_rate'"),
        ("training.learning_rate", "data.seed", "the same cases, folds and labels"),
        ("startup = 1", "folds = [7]", "tune.folds [7]"),
    ],
)
def test_a_search_that_cannot_be_is_refused(phantoms: Path, tmp_path: Path, old: str, new: str, sentence: str) -> None:
    study = read_study(study_file(tmp_path, phantoms, SEARCH.replace(old, new)))
    with pytest.raises(HilumError) as error:
        run_study(study, tmp_path / "out", runner=fake())
    assert sentence in str(error.value) and "secret" not in str(error.value) and error.value.exit_code == 2


def test_another_space_is_another_search(phantoms: Path, tmp_path: Path) -> None:
    file = study_file(tmp_path, phantoms, SEARCH.replace("trials = 5", "trials = 1"))
    run_study(read_study(file), tmp_path / "out", runner=fake())
    file.write_text(file.read_text().replace("high = 1e-1", "high = 1e-2"))
    with pytest.raises(UsageError, match="over another space"):
        run_study(read_study(file), tmp_path / "out", runner=fake())


def test_two_machines_share_a_search_by_its_storage(phantoms: Path, tmp_path: Path) -> None:
    text = SEARCH.replace("startup = 1", f'startup = 1\nstorage = "sqlite:///{tmp_path / "shared.db"}"')
    file = study_file(tmp_path, phantoms, text.replace("trials = 5", "trials = 2"))
    run_study(read_study(file), tmp_path / "here", runner=fake())
    file.write_text(file.read_text().replace("trials = 2", "trials = 4"))
    tuned = run_study(read_study(file), tmp_path / "there", runner=fake())["tune"]
    assert [bool(one["recipe"]) for one in tuned["trials"]] == [False, False, True, True]
    assert len(list((tmp_path / "there" / "tune").glob("trial_*"))) == 2


def test_passwords_are_not_told() -> None:
    assert without_password("mysql://me:secret@host/x") == "mysql://me:***@host/x"
    assert without_password("sqlite:///a.db") == "sqlite:///a.db"


def test_differences_are_named() -> None:
    told = differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})
    assert told == ["a.c was 2 and is 3", "d was None and is 4"]


def test_results_hold_what_they_were_done_with(phantoms: Path, tmp_path: Path) -> None:
    study: Any = read_study(study_file(tmp_path, phantoms, arms(a="")))
    run_study(study, tmp_path / "out", runner=fake())
    job = plan_study(study, tmp_path / "out").jobs[0]
    assert job.is_done
    found = read_json(job.folder / "result.json")
    del found["recipe"]["training"]["ema"], found["recipe"]["training"]["clip_norm"]
    assert not job.is_of(found | {"key": "older"})  # ema has no longer its value
    found["recipe"]["training"]["ema"] = 0.99
    assert job.is_of(found | {"key": "older"})  # clip_norm has its default: an older hilum did not know it
