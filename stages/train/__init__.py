"""The stage train: train the network on the prepared data, keep the best epoch.

Enter at `stage.train()`. `loop.train_network()` is the one training loop, also of distillation and fine-tuning.
Beside it: `batches` (data), `objective` (loss), `scores`, `schedule` (learning rate, best epoch, early stopping),
`augment`, `fabric` (devices), `checkpoints` (resuming), `progress` (what is printed), `duration`.
May import stages.networks, stages.metrics, stages.params and stages.core.
"""
