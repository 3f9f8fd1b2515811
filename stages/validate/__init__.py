"""The stage validate: check the snapshot against the data contract and quarantine the rows that break it.

Enter at `stage.main()`; `stage.check()` handles one source. Rows: `row_rules`, `cross_source_duplicates`,
`flagged_rows`, `violations` (what a person reads). Tables: `contract`, `parameters`, `sampling_steps`, `quality`,
`source_profile`, `expectations`.
May import stages.tables, stages.params and stages.core.
"""
