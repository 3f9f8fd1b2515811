"""Tables that may be larger than memory: Ibis expressions on DuckDB or Spark, and parquet files.

Enter at `engine.Engine`, used as a context; `parquet` reads and writes files, `casting` casts cell by cell, `rounding`
rounds the figures that an engine computes.
May import stages.params and stages.core.
"""
