"""SCANS ON DISK -> WHAT THEY HOLD: fetched, verified, explored, selected, sliced."""
