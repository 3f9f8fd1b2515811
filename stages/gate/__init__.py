"""The stage gate: judge the reports against the thresholds, and draw the page.

Enter at `stage.main()`; `stage.judge()` decides. `evidence` reads the reports and checks whether they can be trusted;
`previous` reads the baseline; `stale_targets` removes outputs of targets that are no longer built.
May import stages.evaluate.recompute, stages.report, stages.params and stages.core.
"""
