"""The `collect` stage: store a snapshot of the data of all configured sources, and record the data's origin.

Start reading at `stage.main()`; `sources` has one module for each type of source.
May import stages.tables.casting, stages.params and stages.core. Other parts of stages.tables are
forbidden, because a change of the table engine must not cause a new snapshot.
"""
