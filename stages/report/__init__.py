"""Reports: the schemas of what stages write about their work, the HTML page, and the tables in the terminal.

Enter at `schemas` (every report but the gate's), `verdict.read_verdict()` (reports/gate.json), `page.render()` and
`terminal`; `figures` and `svg` draw. This file imports nothing, so that printing a table starts fast.
May import stages.params and stages.core.
"""
