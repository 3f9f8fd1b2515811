"""Reports: what stages write about their work, and how a person sees it.

`schemas` has the models of the reports, `verdict` that of the gate (reports/gate.json), `parameters_digest` shows
whether a verdict is outdated, `libraries` lists versions. `page` draws reports/index.html, `terminal` prints tables.
This file imports nothing, so that printing a table starts fast.
May import stages.params and stages.core.
"""
