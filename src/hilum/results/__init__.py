"""LABELS -> NUMBERS: what a label map measures, organ by organ and lesion by lesion."""
