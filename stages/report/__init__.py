"""Read the reports that the stages write, and show them as a page and as tables.

`verdict` defines the fields of the gate's report, reports/gate.json, and `schemas` defines the fields of all other
reports. `parameters_digest` computes a digest that shows whether a verdict is outdated. `libraries` lists the versions
of libraries. `page` draws reports/index.html, and `terminal` prints tables. This file imports nothing, so that commands
that print tables start fast.
May import stages.metrics, stages.params and stages.core.
"""
