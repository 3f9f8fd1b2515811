"""Parameters of `train`: the network, how it is optimised, what is done to the training samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.params.base import Block


class Cnn(Block):
    channels: list[int] = Field(min_length=1)
    kernel: int = Field(gt=0)
    hidden: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class Rnn(Block):
    cell: Literal["gru", "lstm"]
    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class Transformer(Block):
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)
    feedforward: int = Field(gt=0)
    patch: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class Optimiser(Block):
    name: Literal["adam", "adamw", "sgd"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class Scheduler(Block):
    name: Literal["cosine", "step", "plateau", "none"]
    warmup_epochs: int = Field(ge=0)


class EarlyStopping(Block):
    patience: int = Field(gt=0)


class Augment(Block):
    noise: float = Field(ge=0)
    rotation_deg: float = Field(ge=0)
    scaling: float = Field(ge=0)
    time_shift: float = Field(ge=0, lt=1)


class Train(Block):
    network: Literal["cnn", "rnn", "transformer"]
    cnn: Cnn
    rnn: Rnn
    transformer: Transformer
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    optimiser: Optimiser
    scheduler: Scheduler
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]
    early_stopping: EarlyStopping
    metric: Literal["accuracy", "f1_macro"]
    augment: Augment
