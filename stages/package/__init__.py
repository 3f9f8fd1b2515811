"""The stage package: put the targets that passed the gate into one deterministic bundle.

Enter at `stage.main()`. `passed` selects the targets, `golden` makes the samples for a device's check, `model_card` and
`sbom` write the documents in the bundle, `archive` the file.
May import stages.export.artifact, stages.report, stages.params, stages.core and edge_agent.{inference,storage}.
"""
