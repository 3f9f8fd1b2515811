"""The stage train: train the network on the prepared data, keep the best epoch.

Enter at `stage.train()`. `loop.fit()` is the one training loop, also of distillation and fine-tuning; `schedule` holds
learning rate and early stopping, `batches` data, loss and scores, `augment` the changes to training samples.
May import stages.networks, stages.metrics, stages.params and stages.core.
"""
