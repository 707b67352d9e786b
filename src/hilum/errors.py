"""Every error that a user can cause, as one tree.

    HilumError                 anything hilum refuses; the command line prints it as one sentence
    |-- UsageError             wrong use: an option, a name, a combination            (exit code 2)
    |   `-- RecipeError        a recipe that cannot be followed: misspelt key, wrong type, contradiction
    |-- InputError             a file or folder that cannot be used as it is          (exit code 1)
    |   |-- ScanError          a scan that cannot be read or is not CT in HU
    |   |-- GeometryError      shapes, affines, slice positions that do not fit together
    |   |-- LabelError         a label map that does not follow its scheme
    |   `-- DatasetError       a data set folder or manifest that has no usable cases
    |-- ModelError             a model folder that is incomplete, damaged or of another format
    |-- TrainingError          training cannot go on: NaN loss, memory, a class that never occurs
    `-- OutputError            results cannot be written: permission, disk full, read-back differs

Programmers' mistakes are asserts and never arrive here. Every message names the file (or option), what was found,
what was wanted and what to do.
"""

from __future__ import annotations

from pathlib import Path


class HilumError(Exception):
    """Something hilum refuses, said in one sentence that a user can act on.

    Args:
        found: what is there, e.g. ``"3 of 40 slices have another spacing (2.5 mm)"``.
        where: the file, folder or option it is about.
        wanted: what would have been right.
        fix: what the user can do now.
    """

    exit_code = 1

    def __init__(
        self, found: str, *, where: str | Path | None = None, wanted: str | None = None, fix: str | None = None
    ):
        self.found, self.where, self.wanted, self.fix = found, where, wanted, fix
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole message: ``where: found; wanted ...; fix.``"""
        text = f"{self.where}: {self.found}" if self.where is not None else self.found
        if self.wanted:
            text += f"; wanted {self.wanted}"
        if self.fix:
            text += f"; {self.fix}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.found, self.where, self.wanted, self.fix))


def _rebuild(
    kind: type[HilumError], found: str, where: str | Path | None, wanted: str | None, fix: str | None
) -> HilumError:
    """Lets errors cross process borders with their parts (keyword arguments do not pickle by themselves)."""
    return kind(found, where=where, wanted=wanted, fix=fix)


class UsageError(HilumError):
    """Wrong use of a command or function; exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be followed."""


class InputError(HilumError):
    """A file or folder that cannot be used as it is."""


class ScanError(InputError):
    """A scan that cannot be read, or is no CT in Hounsfield units."""


class GeometryError(InputError):
    """Shapes, affines or slice positions that do not fit together."""


class LabelError(InputError):
    """A label map that does not follow its scheme."""


class DatasetError(InputError):
    """A data set folder or manifest without usable cases."""


class ModelError(HilumError):
    """A model folder that is incomplete, damaged or of another format."""


class TrainingError(HilumError):
    """Training cannot go on."""


class OutputError(HilumError):
    """Results cannot be written, or differ when read back."""
