"""The stage validate: check the snapshot against the data contract and quarantine the rows that violate it.

Enter at `stage.main()`; `stage.check_source()` handles one source. Modules for rows: `row_rules`,
`cross_source_duplicates`, `flagged_rows` and `violations` (reports for the user). Modules for tables: `contract`,
`parameters`, `sampling_steps`, `quality`, `source_profile` and `expectations`.
May import stages.tables, stages.params and stages.core.
"""
