from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from hilum.errors import InputError, OutputError
from hilum.files import plain, read_json, write_json, write_text, written, written_folder


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="stop"), written(path) as part:
        part.write_text("half")
        raise ValueError("stop")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["b.txt"]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "1")
    (tmp_path / "y").write_text("1")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_writing_never_changes_the_umask_of_other_threads(tmp_path: Path) -> None:
    before, stop = os.umask(0o077), threading.Event()

    def write(number: int) -> None:
        while not stop.is_set():
            write_text(tmp_path / f"{number}.txt", "")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    try:
        for thread in threads:
            thread.start()
        for number in range(2000):
            probe = tmp_path / f"probe{number}"
            os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o666))
            assert probe.stat().st_mode & 0o777 == 0o600
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        os.umask(before)


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out"):
        write_text(tmp_path / "file" / "x.json", "")


def test_json_is_strict_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    assert not path.exists()
    write_json(path, plain({"a": np.float32(1.5), "b": (np.nan, np.int16(3)), "c": np.arange(2), "p": Path("x")}))
    assert read_json(path) == {"a": 1.5, "b": [None, 3], "c": [0, 1], "p": "x"}
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')  # the mark that Windows editors put in front
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": 1')
    with pytest.raises(InputError, match="is not JSON"):
        read_json(path)
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "y.json")


def test_a_folder_s_files_get_ordinary_permissions(tmp_path: Path) -> None:
    with written_folder(tmp_path / "model") as part:
        (part / "private").touch(mode=0o600)
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "model" / "private").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
