"""Programs that write the documentation: reference pages from the code, the website, and pictures of real runs.

Entry points: `python -m docs.generator.reference` (make docs-reference), `python -m docs.generator.site` (make docs)
and `python -m docs.generator.pictures` (make docs-images). May import every package of the project. Only tests import
this package.
"""
