"""The stage evaluate: measure an exported file on the test split, through the agent's own runtime.

Enter at `stage.main()`. `latency` measures time and memory; `recompute` recomputes the numbers of a report from
its list of predictions, for the gate.
May import stages.export.artifact, stages.report, stages.metrics, stages.params, stages.core and edge_agent.inference.
"""
