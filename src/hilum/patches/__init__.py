"""CASE -> BATCH: which part of which case, cut, augmented, stacked.

``sampling`` chooses and cuts; ``presets`` say what augmentation may do, ``augment`` draws and applies it (``spatial``,
``elastic``, ``acquisition`` and ``intensity`` do the arithmetic), ``own`` calls anybody's own functions after it;
``batches`` puts them together ahead of the training loop, ``tiles`` covers a volume with windows for inference.
"""
