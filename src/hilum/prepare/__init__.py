"""VOLUME -> CASE: what the data decide, and scans made ready by it.

    fingerprint   reads all cases once: spacings, shapes, HU and volumes
    make_plan     spacing, patch, batch, network depth and normalisation from a fingerprint
    prepare_scan  a Volume to a Case: int16 HU, SPL order, the plan's spacing; ``undo_labels`` goes back
    build_store   all prepared cases on the disk, memory-mapped, rebuilt only where something changed

Knows no network, no patch, no torch.
"""

from hilum.prepare.fingerprint import CaseFacts, Fingerprint, Intensities, fingerprint
from hilum.prepare.memory import memory_bytes
from hilum.prepare.normalisation import Normalisation
from hilum.prepare.plan import Plan, make_plan
from hilum.prepare.preprocess import Case, prepare_labels, prepare_scan, prepared_grid, undo_labels
from hilum.prepare.resample import resample_image, resample_labels
from hilum.prepare.store import PreparedCase, Store, build_store, open_store

__all__ = [
    "Case",
    "CaseFacts",
    "Fingerprint",
    "Intensities",
    "Normalisation",
    "Plan",
    "PreparedCase",
    "Store",
    "build_store",
    "fingerprint",
    "make_plan",
    "memory_bytes",
    "open_store",
    "prepare_labels",
    "prepare_scan",
    "prepared_grid",
    "resample_image",
    "resample_labels",
    "undo_labels",
]
