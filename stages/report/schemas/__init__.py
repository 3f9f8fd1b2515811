"""The schemas of the reports: models of the fields that a later stage reads. A report may have other fields too.

One module per part of the pipeline: `data` (validate, prepare, collect), `training` (train, compress), `export`,
`evaluation`; `base` holds what they share. The gate's own report is `stages.report.verdict`.
"""
