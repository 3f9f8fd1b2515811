"""The `evaluate` stage: measure an exported file on the test split, with the same runtime that devices use.

Start reading at `stage.main()`. `latency` measures latency and memory. The `gate` stage uses `recompute` to compute the
numbers of a report again from its list of predictions.
May import stages.export.artifact, stages.report, stages.metrics, stages.params, stages.core and edge_agent.inference.
"""
