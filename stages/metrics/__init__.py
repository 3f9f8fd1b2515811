"""How good answers are: classification metrics and their intervals, from arrays alone.

Enter at `classification.estimates()`; `confusion` counts actual and predicted classes, `bootstrap` draws whole groups
again for intervals. Used by train, evaluate and the gate.
Imports nothing else of this project.
"""
