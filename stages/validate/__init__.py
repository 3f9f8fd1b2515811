"""The `validate` stage: check the snapshot against the data contract and quarantine the rows that violate it.

Start reading at `stage.main()`; `check_sources.flag_source()` checks the rows of one source. `row_rules`,
`cross_source_duplicates` and `flagged_rows` check single rows, and `violations` reports the rows that violate the
contract. `contract`, `sampling_steps`, `quality`, `source_profile` and `expectations` check whole tables. `parameters`
checks the contract.
May import stages.tables, stages.params and stages.core.
"""
