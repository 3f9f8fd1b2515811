"""The stage gate: judge the reports against the thresholds, and draw the page.

Enter at `stage.judge()`. `evidence` reads the reports and says why one cannot be trusted; `stale_targets` removes what
earlier targets left.
May import stages.evaluate.recompute, stages.report, stages.metrics, stages.params and stages.core.
"""
