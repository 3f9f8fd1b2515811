"""The schemas of the reports, as pydantic models. They declare only the fields that later stages read.

There is one module for each part of the pipeline: `data` (collect, validate, prepare), `training` (train, compress),
`export` and `evaluation`. `base` has the types that several modules use. The schema of the gate's report is in
`stages.report.verdict`.
"""
