"""The `compress` stage: distil the trained network, prune whole channels, and fine-tune. Each step is optional.

Start reading at `stage.compress()`. `distil` and `prune` each take a network and return a smaller one.
May import stages.train, stages.networks, stages.params and stages.core.
"""
