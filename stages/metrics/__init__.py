"""Compute classification metrics and their confidence intervals from NumPy arrays.

Start reading at `classification.estimates()`. `bootstrap` resamples whole groups of test samples, and `classification`
computes the intervals from the resampled data. `confusion` computes precision, recall and F1 from confusion matrices.
The stages from `train` to `package`, and the report page, use this package. It imports nothing else from this project.
"""
