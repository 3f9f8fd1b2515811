"""The stage gate: judge the reports against the thresholds, and draw the page.

Enter at `stage.main()`; `stage.judge()` decides. `evidence` reads the reports and says why one cannot be trusted;
`stale_targets` removes what earlier targets left.
May import stages.evaluate.recompute, stages.report, stages.params and stages.core.
"""
