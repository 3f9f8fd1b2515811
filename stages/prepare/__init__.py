"""The stage prepare: convert validated rows to arrays of samples in three splits.

Enter at `stage.prepare()`, which uses in this order: `missing` (missing values), `splits` (the split of each sample),
`arrays` and `windows` (samples on disk), `leakage` (no sample in two splits), `scaling` and `drift_reference`.
May import stages.tables, stages.params, stages.core and edge_agent.monitoring.
"""
