"""Observe the release and the device: statistics, metrics, probes, drift, and samples captured for retraining.

Start reading at `service_statistics` (the counts of the whole service), `release_statistics` (the counts of one
release), `health` (probes, and the observations that decide a trial) and `capture`, which stores samples in a `ring`
on the disk. `samples` exports these samples, and `sample_times` finds out when they were captured. `prometheus` exports
the statistics, and `metric_table` describes each metric. `drift` needs only numpy, because the pipeline uses it too.

May import `lifecycle` (the rules of a trial) and the packages below it.
"""
