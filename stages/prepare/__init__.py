"""The stage prepare: from validated rows to arrays of samples in three splits.

Enter at `stage.prepare()`: `missing`, then `splits` (which sample is in which split), `arrays` and `windows` (samples
on disk), `leakage` (no sample in two splits), `scaling`, and at the end `drift_reference`.
May import stages.tables, stages.params, stages.core and edge_agent.monitoring.
"""
