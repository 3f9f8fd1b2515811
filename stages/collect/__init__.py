"""The `collect` stage: take a snapshot of every configured source, with its provenance.

Start reading at `stage.main()`; `sources` has one module for each type of source.
May import stages.tables.casting, stages.params and stages.core. Other parts of stages.tables are
forbidden, because a change of the table engine must not cause a new snapshot.
"""
