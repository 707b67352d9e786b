"""What is known about a public data set besides its files: licence, citation, where it is kept, its traps.

Comes in: nothing. Goes out: frozen records that each data set's module fills (``FACTS``), that ``hilum data list``
prints, ``hilum data fetch`` downloads by and ``hilum data verify`` acts on. It opens no file and no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Check = Literal["axes", "odd_shape", "stored_type", "unit_spacing", "overlap", "excluded", "note"]


@dataclass(frozen=True)
class Trap:
    """One thing that goes wrong with a set, as data.

    Attributes:
        code: short name, for reports ("kits-axes").
        text: the sentence that a report prints.
        check: what verify looks at. "axes": the files' axis codes are ``value``. "odd_shape": ``value`` maps case names
            to the two in-plane counts that they have and may have. "stored_type": label maps of ``cases`` are stored as
            ``value`` in the corrected release. "unit_spacing": ``cases`` are known to claim 1 mm along every axis.
            "overlap": patients of the sets ``value`` are these patients too. "excluded": ``cases`` are in doubt.
            "note": nothing that files can show; it is printed.
        cases: the cases it is about; none named means all.
        value: what the check needs.
    """

    code: str
    text: str
    check: Check = "note"
    cases: tuple[str, ...] = ()
    value: Any = None


@dataclass(frozen=True)
class RemoteFile:
    """One file that somebody serves.

    Attributes:
        url: where from.
        path: where to, relative to the folder that fetch fills.
        case: the case that it belongs to, "" for what belongs to all.
        md5: its checksum where one is published; else the server's own is used where it offers one.
        bytes: about how large, for the check of free space where the server does not say.
        unpack: whether it is a tar that is unpacked beside itself and then removed.
    """

    url: str
    path: str
    case: str = ""
    md5: str = ""
    bytes: int = 0
    unpack: bool = False


@dataclass(frozen=True)
class Facts:
    """A public data set.

    Attributes:
        title: as its makers call it.
        cases: how many, in words.
        size_gb: about how much a complete copy takes; 0 if it depends.
        licence: of the data.
        citation: what to cite.
        home: its page.
        layout: how the files lie, in one line.
        patients: sets with the same word here number the same patients alike ("kits"); "" if patients are its own.
        traps: what goes wrong with it.
        remote: the files for a choice of case numbers (None: all); None where no mirror may be fetched from.
        variants: what stands behind a colon in ``fetch NAME:VARIANT`` (MSD's tasks); empty if there is one set only.
        by_hand: what a person must do where nothing can be fetched.
    """

    title: str
    cases: str
    size_gb: float
    licence: str
    citation: str
    home: str
    layout: str
    patients: str = ""
    traps: tuple[Trap, ...] = ()
    remote: Callable[[Iterable[int] | None, str], list[RemoteFile]] | None = None
    variants: tuple[str, ...] = ()
    by_hand: str = ""
