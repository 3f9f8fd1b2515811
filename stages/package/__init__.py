"""The `package` stage: put the targets that passed the gate into one deterministic bundle, or write why there is none.

Start reading at `stage.main()`. `passed` selects the targets, `golden` writes the samples with which a device checks a
model, `model_card` and `sbom` create the documents in the bundle, and `archive` writes the archive file. May import
stages.export.artifact, stages.metrics, stages.report, stages.params, stages.core and edge_agent.{inference,storage}.
"""
