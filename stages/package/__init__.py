"""The stage package: put what passed the gate into one deterministic bundle.

Enter at `stage.main()`. `archive` writes the file, `model_card` and `sbom` what people and auditors read in it.
May import stages.export.artifact, stages.report, stages.params, stages.core and edge_agent.{inference,storage}.
"""
