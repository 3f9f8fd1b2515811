"""The `train` stage: train the network on the prepared data and keep the weights of the best epoch.

Start reading at `stage.train()`. `loop.train_network()` is the training loop, which distillation and fine-tuning also
use. The other modules are `batches` (data), `objective` (loss), `scores`, `schedule` (learning rate, best epoch, early
stopping), `augment`, `fabric` (devices), `checkpoints` (resuming), `progress` (display) and `duration` (training time).
May import stages.networks, stages.metrics, stages.params and stages.core.
"""
