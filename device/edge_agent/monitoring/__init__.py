"""Observe the release and the device: statistics, metrics, probes, drift, samples captured for retraining.

Start reading at `service_statistics` (all counts since the release was activated; `release_statistics` holds those of
one release), `health` (probes, and the observations that decide a trial) and `capture` (which keeps samples in a `ring`
on the disk; `samples` exports them). `prometheus` exports the statistics as
`metric_table` describes them. `drift` needs numpy only: the pipeline uses
it too.

May import `lifecycle` (the rules of a trial) and the packages below it.
"""
