"""MANY RUNS -> ONE ANSWER: networks or settings on the same folds, tuned, compared."""
