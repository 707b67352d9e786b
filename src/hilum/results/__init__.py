"""LABELS -> NUMBERS: scores against a truth, measurements, statistics, pictures and pages.

Comes in: label Volumes (and scans to draw on). Goes out: numbers with their units and reasons, JSON, CSV, HTML. Nothing
here knows networks or torch.
"""
