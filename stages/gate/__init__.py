"""The `gate` stage: judge the reports against the thresholds, record the verdict, and write the HTML page.

Start reading at `stage.main()`; `stage.judge()` returns the verdict. `evidence` reads the reports and checks whether
they can be trusted. `support` judges whether every class has enough samples. `previous` reads the metrics of the
previous build, because the page compares them with the new metrics. `stale_targets` removes the outputs of targets that
are no longer built. May import stages.evaluate.recompute, stages.metrics, stages.report, stages.params and stages.core.
"""
