"""The `evaluate` stage: measure an exported file on the test split, with the same runtime that devices use.

Start reading at `stage.main()`. `latency` measures latency and memory. `recompute` computes the numbers of an
evaluation report again from the list of predictions; the `gate` stage uses it to check the report.
May import stages.export.artifact, stages.report, stages.metrics, stages.params, stages.core and edge_agent.inference.
"""
