"""Fetching: whole or not there, whatever the server, the disk or the process do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hilum.cli import main
from hilum.datasets import RemoteFile, facts_of
from hilum.errors import OutputError, UsageError
from hilum.progress import Progress
from hilum.survey import download as downloading
from hilum.survey import fetch as fetching
from hilum.survey.fetch import fetch, fetch_files, numbers_of
from slow_server import Served, serving

CONTENT = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as served:
        served.files["/a.bin"] = CONTENT
        yield served


def get(server: Served, out: Path, *paths: str, **options: Any) -> dict[str, Any]:
    files = [RemoteFile(server.url + path, path.rpartition("/")[2], **options) for path in paths]
    return fetch_files(files, out, tries=3, first_wait_s=0.01, timeout_s=5)


def left(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir() if p.name not in (".fetch.lock", "fetched.jsonl"))


def test_a_file_comes_whole_and_once(server: Served, tmp_path: Path) -> None:
    answer = get(server, tmp_path, "/a.bin")
    assert answer["fetched"] == 1 and not answer["failed"] and (tmp_path / "a.bin").read_bytes() == CONTENT
    assert left(tmp_path) == ["a.bin"]
    row = json.loads((tmp_path / "fetched.jsonl").read_text())
    assert row["sha256"] == hashlib.sha256(CONTENT).hexdigest() and row["checked"] == ["sha256", "length"]
    asked = server.asked.total()
    assert get(server, tmp_path, "/a.bin")["there"] == 1 and server.asked.total() == asked  # nobody was asked again
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])  # somebody cut it off: no longer as recorded
    assert get(server, tmp_path, "/a.bin")["fetched"] == 1 and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_files_that_somebody_brought_are_kept_if_they_are_right(server: Served, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert get(server, tmp_path, "/a.bin")["fetched"] == 1 and server.asked["GET", "/a.bin"] == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.bin").write_bytes(CONTENT[:-1] + b"?")  # as long, but not the same
    get(server, other, "/a.bin")
    assert (other / "a.bin").read_bytes() == CONTENT


def test_dropped_connections_are_gone_on_with(server: Served, tmp_path: Path) -> None:
    server.faults["/a.bin"] = {"drop"}  # every answer ends after 50 kB
    assert not get(server, tmp_path, "/a.bin")["failed"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.ranges] == ["bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert server.sent["/a.bin"] == len(CONTENT), "no byte was sent twice"


def test_ranges_that_are_ignored_start_anew(server: Served, tmp_path: Path) -> None:
    server.faults["/a.bin"] = {"drop once", "no range"}
    assert not get(server, tmp_path, "/a.bin")["failed"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.sent["/a.bin"] == 50_000 + len(CONTENT)


def test_a_file_that_changed_meanwhile_is_not_patched_together(server: Served, tmp_path: Path) -> None:
    server.faults["/a.bin"] = {"drop once", "changes"}
    assert not get(server, tmp_path, "/a.bin")["failed"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[:-1] + b"\x02"


@pytest.mark.parametrize("fault", ["long", "wrong sum", "busy", "drop no range"])
def test_what_never_comes_right_is_given_up_and_named(server: Served, tmp_path: Path, fault: str) -> None:
    server.faults["/a.bin"] = {"drop", "no range"} if fault == "drop no range" else {fault}
    server.files["/b.bin"] = b"good"
    answer = get(server, tmp_path, "/a.bin", "/b.bin")
    assert list(answer["failed"]) == ["a.bin"] and "/a.bin" in answer["failed"]["a.bin"] and answer["fetched"] == 1
    assert not (tmp_path / "a.bin").exists() and (tmp_path / "b.bin").read_bytes() == b"good"
    assert server.asked["GET", "/a.bin"] <= 4


@pytest.mark.parametrize("fault", ["busy once", "wrong sum once", "no head", "no length"])
def test_what_passes_is_waited_for(server: Served, tmp_path: Path, fault: str) -> None:
    server.faults["/a.bin"] = {fault}
    assert not get(server, tmp_path, "/a.bin")["failed"] and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_absent_files_are_said_at_once_and_do_not_stop_the_others(server: Served, tmp_path: Path) -> None:
    answer = get(server, tmp_path, "/gone.bin", "/a.bin")
    assert "404" in answer["failed"]["gone.bin"] and "home page" in answer["failed"]["gone.bin"]
    assert server.asked["GET", "/gone.bin"] == 0 and (tmp_path / "a.bin").exists()


def test_published_checksums_hold(server: Served, tmp_path: Path) -> None:
    right = hashlib.md5(CONTENT).hexdigest()
    assert not get(server, tmp_path / "1", "/a.bin", md5=right)["failed"]
    assert "wrong md5" in get(server, tmp_path / "2", "/a.bin", md5="0" * 32)["failed"]["a.bin"]
    assert not (tmp_path / "2" / "a.bin").exists()


def test_hugging_face_names_the_sum_before_it_redirects(server: Served, tmp_path: Path) -> None:
    assert not get(server, tmp_path, "/moved/a.bin")["failed"]
    offer = downloading.offer_of(f"{server.url}/moved/a.bin")
    assert offer.sums["sha256"] == hashlib.sha256(CONTENT).hexdigest() and offer.bytes == len(CONTENT)


def test_gzip_is_read_to_its_end(server: Served, tmp_path: Path) -> None:
    whole = gzip.compress(CONTENT)
    server.files |= {"/good.nii.gz": whole, "/short.nii.gz": whole[:-20], "/page.nii.gz": b"<html>please log in</html>"}
    answer = get(server, tmp_path, "/good.nii.gz", "/short.nii.gz", "/page.nii.gz")
    assert sorted(answer["failed"]) == ["page.nii.gz", "short.nii.gz"] and left(tmp_path) == ["good.nii.gz"]
    assert "no whole gzip" in answer["failed"]["short.nii.gz"] and "login" in answer["failed"]["page.nii.gz"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    told = io.StringIO()
    files = [RemoteFile("http://127.0.0.1:9/x", name) for name in ("x", "y", "z")]
    answer = fetch_files(files, tmp_path, tries=2, first_wait_s=0.01, timeout_s=2, progress=Progress(stream=told))
    assert told.getvalue().count("127.0.0.1:9: cannot be reached") == 1, "said while it is tried again, and once"
    assert "cannot be reached" in answer["failed"]["x"]


def test_too_little_space_is_said_first(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(OutputError, match=r"0\.0 GB are to come, 0\.0 GB are free"):
        get(server, tmp_path, "/a.bin")
    assert server.asked["GET", "/a.bin"] == 0 and left(tmp_path) == []


def test_a_disk_that_fills_up_leaves_only_parts(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() >= 60_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[: 60_000 - self.tell()]) or 0

    real = open

    def opened(path: Any, mode: str = "r", **options: Any) -> Any:
        return (
            Full(path, mode.replace("b", ""))
            if str(path).endswith(".part") and "b" in mode and mode[0] != "r"
            else real(path, mode, **options)
        )

    monkeypatch.setattr(downloading, "CHUNK", 20_000)
    monkeypatch.setattr(downloading, "open", opened, raising=False)
    with pytest.raises(OutputError, match="disk is full"):
        get(server, tmp_path, "/a.bin")
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    monkeypatch.undo()
    os.environ["no_proxy"] = "127.0.0.1"
    server.sent.clear()
    assert not get(server, tmp_path, "/a.bin")["failed"] and (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.sent["/a.bin"] == len(CONTENT) - 60_000  # it went on


def test_a_killed_process_leaves_a_part_and_the_next_goes_on(server: Served, tmp_path: Path) -> None:
    server.pause_s = 0.05
    code = (
        "import sys; from pathlib import Path; from hilum.datasets import RemoteFile\n"
        "from hilum.survey import download; download.CHUNK = 10_000\n"
        "from hilum.survey.fetch import fetch_files\n"
        "fetch_files([RemoteFile(sys.argv[1], 'a.bin')], Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/a.bin", str(tmp_path)])
    part = tmp_path / "a.bin.part"
    end = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 30_000) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.exists() and not (tmp_path / "a.bin").exists()
    have = part.stat().st_size
    server.pause_s = 0
    assert not get(server, tmp_path, "/a.bin")["failed"] and (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges[-1] == ("/a.bin", f"bytes={have}-")


def test_tars_are_unpacked_whole(server: Served, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("Task99_X/dataset.json", "Task99_X/imagesTr/._x.nii.gz"):
            tar.addfile(info := tarfile.TarInfo(name), io.BytesIO(b"{}"[: info.size]))
    server.files["/Task99_X.tar"] = data.getvalue()
    answer = get(server, tmp_path, "/Task99_X.tar", unpack=True)
    assert not answer["failed"] and left(tmp_path) == ["Task99_X"]
    assert [p.name for p in (tmp_path / "Task99_X").rglob("*") if p.is_file()] == ["dataset.json"]
    assert get(server, tmp_path, "/Task99_X.tar", unpack=True)["there"] == 1
    server.files["/Bad.tar"] = b"no tar"
    assert "no whole tar" in get(server, tmp_path, "/Bad.tar", unpack=True)["failed"]["Bad.tar"]


@pytest.mark.parametrize(("name", "kind"), [("../out.txt", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)])
def test_a_tar_that_reaches_out_is_refused(server: Served, tmp_path: Path, name: str, kind: bytes) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hosts"
        tar.addfile(info, io.BytesIO())
    server.files["/Evil.tar"] = data.getvalue()
    folder = tmp_path / "data"
    assert "leads elsewhere" in get(server, folder, "/Evil.tar", unpack=True)["failed"]["Evil.tar"]
    assert not (tmp_path / "out.txt").exists() and not (folder / "link").is_symlink()


def test_one_fetch_a_folder(server: Served, tmp_path: Path) -> None:
    with fetching._alone(tmp_path), pytest.raises(UsageError, match="another fetch"):
        get(server, tmp_path, "/a.bin")


def test_many_files_at_once(server: Served, tmp_path: Path) -> None:
    server.files |= {f"/{i}.bin": CONTENT[: i * 1000] for i in range(1, 40)}
    for i in range(1, 40, 7):
        server.faults[f"/{i}.bin"] = {"drop once"}
    answer = get(server, tmp_path, *(f"/{i}.bin" for i in range(1, 40)))
    assert answer["fetched"] == 39 and all((tmp_path / f"{i}.bin").stat().st_size == i * 1000 for i in range(1, 40))


def test_sources_are_what_the_sets_say() -> None:
    kits = facts_of("kits23")
    assert kits is not None and kits.remote is not None
    files = kits.remote([400], "")
    assert [f.path for f in files] == ["kits23.json", "case_00400/segmentation.nii.gz", "case_00400/imaging.nii.gz"]
    assert files[2].url.startswith("https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/")
    assert files[2].url.endswith("/images/case_00400.nii.gz") and "github" in files[1].url
    assert len(kits.remote(None, "")) == 1 + 2 * 489
    with pytest.raises(UsageError, match="no case 350"):
        kits.remote([350], "")
    msd = facts_of("msd")
    assert msd is not None and msd.remote is not None
    (tar,) = msd.remote(None, "Task08_HepaticVessel")
    assert tar.unpack and tar.md5 and tar.url.endswith("Task08_HepaticVessel.tar")


def test_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Served, monkeypatch: Any) -> None:
    assert numbers_of("0-2, 7") == [0, 1, 2, 7]
    for bad in ("a", "3-1", "1-", ""):
        with pytest.raises(UsageError):
            numbers_of(bad)
    for name, told in (("folder", "no public data set"), ("msd", "msd:Task03_Liver"), ("kits23:x", "no 'x'")):
        with pytest.raises(UsageError, match=told):
            fetch(name, tmp_path)
    assert main(["data", "fetch", "lits", "--out", str(tmp_path / "lits")]) == 1
    assert "Training Batch 1" in capsys.readouterr().out and not (tmp_path / "lits").exists()
    facts = facts_of("kits19")
    whole = gzip.compress(b"x" * 1000)
    server.files |= {"/kits.json": b"[]", "/segmentation.nii.gz": whole, "/imaging.nii.gz": whole}

    def here(numbers: Any, variant: str = "") -> list[RemoteFile]:
        assert facts is not None and facts.remote is not None
        return [RemoteFile(f"{server.url}/{Path(f.path).name}", f.path, f.case) for f in facts.remote(numbers, variant)]

    monkeypatch.setattr(fetching, "facts_of", lambda name: facts and SimpleNamespace(**{**vars(facts), "remote": here}))
    out = tmp_path / "kits19"
    assert main(["data", "fetch", "kits19", "--out", str(out), "--cases", "3-4", "--quiet", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fetched"] == 5 and answer["licence"] == "CC BY-NC-SA 4.0"
    assert sorted(p.name for p in out.glob("case_*")) == ["case_00003", "case_00004"]
    shutil.rmtree(out / "case_00004")
    del server.files["/imaging.nii.gz"]
    assert main(["data", "fetch", "kits19", "--out", str(out), "--cases", "3-4", "--quiet"]) == 1
    assert "case_00004/imaging.nii.gz" in capsys.readouterr().out
