"""What people see: the HTML page, the tables in the terminal, and the schemas of the reports they are made from.

Enter at `page.render()`, `terminal`, and `verdict.read_verdict()` for reports/gate.json; `figures` and `svg` draw.
Nothing is imported here, so that a table is quick.
May import stages.params and stages.core.
"""
