"""hilum: from a CT scan to a labelled, measured, explained picture of an organ and its tumours."""

__version__ = "0.1.0"
