"""Read the reports that the stages write, and show them as a page and as tables.

`schemas` defines the fields of the reports, and `verdict` those of the gate's report, reports/gate.json.
`parameters_digest` shows whether a verdict is outdated, and `libraries` lists the versions of libraries. `page` draws
reports/index.html, and `terminal` prints tables. This file imports nothing, so that commands that print tables start
fast.
May import stages.params and stages.core.
"""
