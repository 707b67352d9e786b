"""LOGITS -> LABELS: sliding windows, back to the scan's own grid, cleaned up by named steps."""
