"""The `compress` stage: distil the trained network, prune whole channels, and fine-tune. Each step is optional.

Start reading at `stage.compress()`. `distil` trains a smaller network, and `prune` removes channels from a network.
May import stages.train, stages.networks, stages.params and stages.core.
"""
