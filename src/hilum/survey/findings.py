"""What can be wrong with a scan or a label map, in four classes.

Comes in: nothing. Goes out: ``Finding``, the record that looking over a case makes, and the table ``CODES`` of all of
them with their class, which the reference page and the tests are held against.

    broken    it cannot be used: a person must bring another file or decide
    fixable   it is wrong and hilum knows how to put it right (``--fix`` writes corrected copies beside)
    noise     it differs by less than matters; hilum reads it as if it were right
    note      it is right, or cannot be told from the file; worth knowing
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["broken", "fixable", "noise", "note"]
KINDS: tuple[Kind, ...] = ("broken", "fixable", "noise", "note")

CODES: dict[str, tuple[Kind, str]] = {
    "missing": ("broken", "a file that should be there is not"),
    "partial": ("broken", "a download that was not finished lies in its place (.part)"),
    "unreadable": ("broken", "cut off, wrong gzip checksum, unknown format, no usable affine"),
    "no-ct": ("broken", "voxels that cannot be HU: NaN, a label map, normalised, intercept lost"),
    "no-labels": ("broken", "a label map with fractions or with values that the scheme does not know"),
    "empty-labels": ("broken", "a label map without a single labelled voxel"),
    "shape": ("broken", "image and label map of different shapes that are no reordering of each other"),
    "misplaced": ("broken", "image and label map claim different places, and the voxels do not tell which is right"),
    "spacing-unknown": ("broken", "a spacing that is known to be false, and no other copy that tells the true one"),
    "axis-order": ("fixable", "the label map lists the same voxels along other axes than its image"),
    "flip": ("fixable", "the label map's affine is that of the image with axes reversed or exchanged"),
    "shift": ("fixable", "the label map's affine has another origin than the image's"),
    "spacing-differs": ("fixable", "the label map's affine has another spacing than the image's, at the same shape"),
    "false-spacing": ("fixable", "a spacing that is known to be false, and another copy that tells the true one"),
    "table-spacing": ("fixable", "a spacing that the set's own table contradicts"),
    "mirrored": ("fixable", "the liver lies on the patient's left: left and right are exchanged in the affine"),
    "rounding": ("noise", "image and label map differ by less than 0.1 mm (32-bit headers)"),
    "whole-floats": ("noise", "whole numbers stored as floats: read as integers, at several times the disk space"),
    "qform": ("noise", "qform and sform of a file disagree; the sform is used"),
    "padding": ("note", "voxels below -1100 HU outside the scanner's circle"),
    "hu-range": ("note", "a largest or smallest HU that is unusual for CT of a body"),
    "rescale": ("note", "DICOM without rescale, or rescaled to something else than HU: the values are taken as HU"),
    "thickness": ("note", "DICOM slices that overlap, or with gaps between them"),
    "no-orientation": ("note", "the file does not say which side is left (neither qform nor sform)"),
    "odd-axes": ("note", "another axis order than the set has: it was converted"),
    "odd-shape": ("note", "an in-plane size that is unusual and right"),
    "old-labels": ("note", "stored as before a correction of the set's labels"),
    "in-doubt": ("note", "a case whose labels are known to be in doubt"),
    "no-label-map": ("note", "an image without label map"),
}


@dataclass(frozen=True)
class Finding:
    """One thing about one case.

    Attributes:
        code: of ``CODES``.
        text: what was found, in a sentence.
        file: which file it is about.
        fix: what a person, or ``--fix``, can do.
        plan: for fixable ones, what ``--fix`` does (see ``survey.fix``).
    """

    code: str
    text: str
    file: str = ""
    fix: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Its class."""
        return CODES[self.code][0]

    def to_json(self) -> dict[str, Any]:
        """Plain fields, the class among them."""
        return {"class": self.kind, **asdict(self)}
