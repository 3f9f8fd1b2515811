"""Parameters of `train`: the network, how it is optimised, what is done to the training samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.params.common import Block, Count, Depth, Rate, Width


class Cnn(Block):
    """One block per entry of `channels`, each pooled by `pool`; a hidden layer on the flattened or averaged rest."""

    channels: list[Width] = Field(min_length=1, max_length=64)
    kernel: int = Field(gt=0, lt=1024)
    pool: int = Field(gt=1, lt=1024)
    head: Literal["flatten", "average"]
    hidden: Width
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _odd(self) -> Cnn:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that a block keeps its samples centred; found {self.kernel}")
        return self


class Rnn(Block):
    """Each step reads `frame` samples of the time axis (images: rows), a step every `hop` samples; with spectral
    features each step reads one frame of them, and `frame` and `hop` are those of `prepare.features`. `pool` is
    what the classifier reads: the last output, or of every unit its highest.
    """

    cell: Literal["gru", "lstm"]
    hidden: Width
    layers: Depth
    frame: Count
    hop: Count
    pool: Literal["last", "max"]
    dropout: float = Field(ge=0, lt=1)


class Transformer(Block):
    """`patch`: pixels a side (images), samples (series, raw audio) or frames (spectral features) per token."""

    width: Width
    heads: Width
    layers: Depth
    feedforward: Width
    patch: Count
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; found {self.width} and {self.heads}")
        return self


class Optimiser(Block):
    name: Literal["adam", "adamw", "sgd"]
    learning_rate: Rate
    weight_decay: float = Field(ge=0, le=1)


class Scheduler(Block):
    """`step` multiplies the rate by `factor` every `step_epochs`; `plateau` when so many bring nothing better."""

    name: Literal["cosine", "step", "plateau", "none"]
    warmup_epochs: int = Field(ge=0)
    step_epochs: Count
    factor: float = Field(gt=0, lt=1)


class EarlyStopping(Block):
    patience: Count


class Augment(Block):
    """Largest change of each kind; 0 is none. `rotation_deg` is for images, `time_shift` for series and audio."""

    noise: float = Field(ge=0, le=10)
    rotation_deg: float = Field(ge=0, le=180)
    scaling: float = Field(ge=0, le=10)
    time_shift: float = Field(ge=0, lt=1)


class Train(Block):
    """`quantile_bins`: channels of a series are spread over so many bins before the network; 0 leaves them."""

    network: Literal["cnn", "rnn", "transformer"]
    quantile_bins: int = Field(ge=0, le=1024)
    cnn: Cnn
    rnn: Rnn
    transformer: Transformer
    epochs: Count
    batch_size: int = Field(gt=1, le=2**31 - 1)
    optimiser: Optimiser
    scheduler: Scheduler
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]
    early_stopping: EarlyStopping
    metric: Literal["accuracy", "f1_macro"]
    augment: Augment

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        if self.scheduler.warmup_epochs >= self.epochs:
            found = self.scheduler.warmup_epochs
            raise ValueError(f"scheduler.warmup_epochs must be less than epochs, {self.epochs}; found {found}")
        return self
