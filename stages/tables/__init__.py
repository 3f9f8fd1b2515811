"""Tables that may be larger than memory: Ibis expressions on DuckDB or Spark, and parquet files.

Start reading at `engine.Engine`, a context manager. `parquet` reads and writes files, `casting` casts a column cell by
cell, and `rounding` rounds the numbers that an engine computes. May import stages.params and stages.core.
"""
