"""How the loaded release and the device do: counts, metrics, health, drift, and samples kept for retraining.

Enter at `counts` (everything counted since the switch), `health` (probes, and what a trial is judged by) and `capture`
(the ring of samples). `prometheus` renders the counts; `drift` needs numpy only, and the pipeline uses it too.

May import `lifecycle` (the rules of a trial) and what stands below it.
"""
