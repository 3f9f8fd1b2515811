"""Classification metrics and their confidence intervals, from arrays alone.

Enter at `classification.estimates()`: it turns the replicates of `bootstrap`, which resamples whole groups, into
intervals; `confusion` counts actual and predicted classes. Used by train, compress and evaluate.
Imports nothing else of this project.
"""
