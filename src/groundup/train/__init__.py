"""Batches and a loss make a model better: the loop, the run folder, and `fit`, which ties them together."""
