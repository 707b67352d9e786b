"""LABELS + TRUTH -> SCORES: the challenges' own numbers, lesions one by one, and what a mean over patients is worth."""
