"""CASES -> WEIGHTS: the loop and its parts: losses, optimisers and schedules, checkpoints, the log."""
