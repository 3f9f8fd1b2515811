"""The `prepare` stage: convert validated rows to arrays of samples in three splits.

Start reading at `stage.main()`, which uses the other modules in this order: `missing` handles missing values, `splits`
assigns samples to splits, `arrays` and `windows` write the samples, `leakage` raises an error if two splits contain the
same sample, `support` names the classes without a sample in a split, and `scaling` and `drift_reference` compute
statistics of the training split. May import stages.tables, stages.params, stages.core and edge_agent.monitoring.
"""
