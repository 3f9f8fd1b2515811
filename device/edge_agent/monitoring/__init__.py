"""Health of the release and the device: counts, metrics, probes, drift, and samples captured for retraining.

Enter at `counts` (everything since the switch; `release_statistics` is its data), `health` (probes, and what a trial is
judged by) and `capture` (the `ring` of samples, which `samples` exports). `prometheus` renders the counts; `drift` and
`drift_window` need numpy only, and the pipeline uses `drift` too.

May import `lifecycle` (the rules of a trial) and what stands below it.
"""
