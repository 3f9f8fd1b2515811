"""Process tables that may be larger than memory, with Ibis expressions on DuckDB or Spark, and with parquet files.

Start reading at `engine.Engine`, a context manager. `parquet` writes and checks files, `casting` casts a column cell by
cell, and `rounding` rounds numbers that DuckDB or Spark computed. May import stages.params and stages.core.
"""
