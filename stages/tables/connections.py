"""Start DuckDB or Spark with a memory limit, a folder for spilled data and settings for reproducible results."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from stages.core.errors import ParameterError
from stages.params import locate_parameter
from stages.params.common import Compute, megabytes

SPARK_LOGGING = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = Spark %p %c{1}: %m%n
"""


def connect_duckdb(compute: Compute, spill: Path) -> Any:
    """Start DuckDB in this process. It writes data that exceeds its memory limit to the folder `spill`.

    Raises:
        ParameterError: DuckDB does not accept the memory limit.
    """
    import duckdb
    import ibis

    connection = ibis.duckdb.connect()
    try:
        connection.raw_sql(f"SET memory_limit = '{megabytes(compute.memory_limit)}MB'")
    except (duckdb.Error, ValueError) as error:
        raise ParameterError(
            locate_parameter("compute.memory_limit"),
            f"found {compute.memory_limit!r}: {error}",
            'a size such as "2GB"',
            "change the value",
        ) from None
    connection.raw_sql(f"SET temp_directory = '{spill}'")
    connection.raw_sql("SET TimeZone = 'UTC'")
    connection.raw_sql("SET enable_progress_bar = false")
    connection.raw_sql(
        "SET preserve_insertion_order = false"
    )  # this saves memory; a query that needs a certain order sorts its rows
    return connection


def connect_spark(compute: Compute, spill: Path) -> Any:
    """Start a Spark session. It writes data that exceeds its memory limit to the folder `spill`.

    Raises:
        ParameterError: PySpark is not installed, or Spark does not start with the configured parameters.
    """
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    try:
        import ibis
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError:
        raise ParameterError(
            locate_parameter("compute.backend"),
            "found 'pyspark', which is not installed",
            "an installed engine",
            "pip install 'edge-ai-workflow[spark]', or set backend: duckdb",
        ) from None
    logging.getLogger("py4j").setLevel(logging.ERROR)
    properties = spill / "log4j2.properties"
    properties.write_text(SPARK_LOGGING, encoding="utf-8")
    builder = SparkSession.builder.master(compute.spark_master).appName("edge-ai-workflow")
    settings = {
        "spark.driver.memory": f"{megabytes(compute.memory_limit)}m",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={properties}",
        "spark.local.dir": str(spill),
        "spark.sql.warehouse.dir": str(spill / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if compute.spark_master.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = "4"  # on a cluster, Spark's default is used
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
    except Py4JJavaError as error:
        raise ParameterError(
            locate_parameter("compute.spark_master"),
            f"found {compute.spark_master!r}, but Spark does not start: {error.java_exception.getMessage()}",
            "the address of a Spark master that responds, or local[2] to use this machine",
            "correct the address, start the cluster, or set backend: duckdb",
        ) from None
    except PySparkRuntimeError as error:
        raise ParameterError(
            locate_parameter("compute.backend"),
            f"found 'pyspark', but Spark does not start: {str(error).splitlines()[0]}",
            "a Java runtime, version 17 or newer, and values that Spark accepts; "
            f"memory_limit is {compute.memory_limit} and spark_master is {compute.spark_master}",
            "apt-get install default-jre-headless, change the value that Spark refuses, or set backend: duckdb",
        ) from None
    return ibis.pyspark.connect(session)
