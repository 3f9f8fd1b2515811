"""The stage validate: check the snapshot against the data contract, quarantine the rows that break it.

Enter at `stage.check()`, the way of one source: `contract` (columns and types), `row_rules`, `flagged_rows` (which row
breaks which rule), `quality` (counts and metrics), `source_profile` (what describes it, for `expectations`).
May import stages.tables, stages.params and stages.core.
"""
