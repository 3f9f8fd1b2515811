"""The `validate` stage: check the snapshot against the data contract and quarantine the rows that violate it.

Start reading at `stage.main()`; `stage.check_source()` checks one source. Rows are checked by `row_rules`,
`cross_source_duplicates` and `flagged_rows`, and `violations` reports the violations. Whole tables are checked by
`contract`, `parameters`, `sampling_steps`, `quality`, `source_profile` and `expectations`.
May import stages.tables, stages.params and stages.core.
"""
