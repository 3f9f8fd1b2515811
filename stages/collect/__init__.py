"""The stage collect: take a snapshot of every configured source, with its provenance.

Enter at `stage.main()`; the sources themselves are in `sources`.
May import stages.tables (casting alone: a snapshot is not taken again for a change of the engine), stages.params and
stages.core.
"""
