"""CASE -> BATCH: which part of which case, cut, augmented, stacked.

``sampling`` chooses and cuts, ``augment`` draws and applies (``spatial`` and ``intensity`` do the arithmetic),
``batches`` puts them together ahead of the training loop, ``tiles`` covers a volume with windows for inference.
"""
