"""The stage compress: distil, prune whole channels, fine-tune, each switched by parameters.

Enter at `stage.compress()`; `distil` and `prune` each take a network and return a smaller one.
May import stages.train, stages.networks, stages.params and stages.core.
"""
