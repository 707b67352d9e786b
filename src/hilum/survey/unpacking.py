"""A TAR'S CONTENT, whole or not at all, and nowhere but beside it.

Comes in: a tar that was fetched. Goes out: its files and folders; the tar is removed. Links, devices and paths that
lead elsewhere are refused.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from hilum.errors import InputError
from hilum.files import cannot_write


def unpack(tar: Path) -> None:
    """A tar's content beside it, whole or not at all; the tar is removed. macOS' ``._`` files are left out."""
    place = tar.with_name(f".unpacking-{tar.stem}")
    try:
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(tar) as file:
            for member in file:
                if not Path(member.name).name.startswith("._"):
                    _extract(file, member, place, tar)
        for item in sorted(place.iterdir()):
            goal = tar.parent / item.name
            if goal.exists():
                raise InputError("is there already", where=goal, fix="move it away and run the same command again")
            os.replace(item, goal)
        place.rmdir()
        tar.unlink()
    except tarfile.TarError as error:
        raise InputError(f"is no whole tar ({error})", where=tar, fix="remove it and fetch it again") from None
    except OSError as error:
        raise cannot_write(tar.parent, error) from error


def _extract(file: tarfile.TarFile, member: tarfile.TarInfo, place: Path, tar: Path) -> None:
    """One plain file or folder inside ``place``. ``extractall`` has its filter from Python 3.11.4 on only."""
    goal = (place / member.name).resolve()
    if not goal.is_relative_to(place.resolve()) or not (member.isfile() or member.isdir()):
        raise InputError(
            f"holds {member.name!r}, a link, a device or a path that leads elsewhere",
            where=tar,
            wanted="plain files and folders",
            fix="do not use it; fetch it again from its own source",
        )
    if member.isdir():
        goal.mkdir(parents=True, exist_ok=True)
        return
    goal.parent.mkdir(parents=True, exist_ok=True)
    content = file.extractfile(member)
    assert content is not None, member.name
    with content, open(goal, "wb") as out:
        shutil.copyfileobj(content, out)
