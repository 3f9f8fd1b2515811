"""Parameters of the stage `train`: the network, its optimisation and the augmentation of training samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.params.common import Block, Count, Depth, Rate, Width


class Cnn(Block):
    """A convolutional network: one block per entry of `channels`, then a hidden layer and the classifier."""

    channels: list[Width] = Field(
        min_length=1, max_length=64, description="Number of channels of each convolutional block."
    )
    kernel: int = Field(gt=0, lt=1024, description="Width of each convolution, in samples or pixels; an odd number.")
    pool: int = Field(gt=1, lt=1024, description="Factor by which each block reduces the size of its input.")
    head: Literal["flatten", "average"] = Field(
        description="Whether the hidden layer reads all outputs of the last block, or their average per channel."
    )
    hidden: Width = Field(description="Number of units of the hidden layer.")
    dropout: float = Field(ge=0, lt=1, description="Share of units that are dropped during training.")

    @model_validator(mode="after")
    def _odd_kernel(self) -> Cnn:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that a block keeps its samples centred; found {self.kernel}")
        return self


class Rnn(Block):
    """A recurrent network over the time axis of a series or a clip, or over the rows of an image."""

    cell: Literal["gru", "lstm"] = Field(description="Type of recurrent cell.")
    hidden: Width = Field(description="Number of units of each layer.")
    layers: Depth = Field(description="Number of recurrent layers.")
    frame: Count = Field(
        description=(
            "Number of samples (images: rows) that one step reads; with spectral features, prepare.features.frame."
        )
    )
    hop: Count = Field(
        description="Number of samples from one step to the next; with spectral features, prepare.features.hop."
    )
    pool: Literal["last", "max"] = Field(
        description="What the classifier reads: the last output, or the largest output of each unit."
    )
    dropout: float = Field(ge=0, lt=1, description="Share of units that are dropped during training.")


class Transformer(Block):
    """A transformer encoder over patches of the input."""

    width: Width = Field(description="Width of a token; a multiple of `heads`.")
    heads: Width = Field(description="Number of attention heads.")
    layers: Depth = Field(description="Number of encoder layers.")
    feedforward: Width = Field(description="Number of units of the feed-forward part of each layer.")
    patch: Count = Field(
        description=(
            "Size of the patch that becomes one token: pixels per side (images), samples (series, raw audio) "
            "or frames (spectral features)."
        )
    )
    dropout: float = Field(ge=0, lt=1, description="Share of units that are dropped during training.")

    @model_validator(mode="after")
    def _divisible_width(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; found {self.width} and {self.heads}")
        return self


class Optimiser(Block):
    """The optimiser of the weights."""

    name: Literal["adam", "adamw", "sgd"] = Field(description="Optimisation method.")
    learning_rate: Rate = Field(description="Learning rate after the warm-up.")
    weight_decay: float = Field(ge=0, le=1, description="Coefficient of the weight decay.")


class Scheduler(Block):
    """Change of the learning rate over the epochs."""

    name: Literal["cosine", "step", "plateau", "none"] = Field(
        description=(
            "Schedule: cosine decay; multiplication by `factor` every `step_epochs` (step), or after `step_epochs` "
            "without improvement (plateau); constant (none)."
        )
    )
    warmup_epochs: int = Field(ge=0, description="Number of epochs in which the rate rises to `learning_rate`.")
    step_epochs: Count = Field(
        description="Number of epochs between two reductions (step), or without improvement (plateau)."
    )
    factor: float = Field(gt=0, lt=1, description="Factor that the rate is multiplied by at each reduction.")


class EarlyStopping(Block):
    """End of training before the last epoch."""

    patience: Count = Field(description="Number of epochs without improvement after which training ends.")


class Augment(Block):
    """Largest random change of each kind to a training sample; 0 switches a kind off."""

    noise: float = Field(
        ge=0,
        le=10,
        description="Largest standard deviation of the added Gaussian noise, as a share of the channel's scale.",
    )
    rotation_deg: float = Field(ge=0, le=180, description="Largest rotation, in degrees; for images only.")
    scaling: float = Field(
        ge=0, le=10, description="Largest relative change of an image's size, or of the amplitude of a series or clip."
    )
    time_shift: float = Field(
        ge=0, lt=1, description="Largest shift as a share of the sample's length; for series and audio only."
    )


class Train(Block):
    """The network and how it is trained."""

    network: Literal["cnn", "rnn", "transformer"] = Field(description="Type of network; its block below applies.")
    quantile_bins: int = Field(
        ge=0,
        le=1024,
        description="Number of equally frequent bins that each channel of a series is spread over; 0: no binning.",
    )
    cnn: Cnn = Field(description="The convolutional network, used when `network` is cnn.")
    rnn: Rnn = Field(description="The recurrent network, used when `network` is rnn.")
    transformer: Transformer = Field(description="The transformer, used when `network` is transformer.")
    epochs: Count = Field(description="Largest number of epochs.")
    batch_size: int = Field(gt=1, le=2**31 - 1, description="Number of samples per step.")
    optimiser: Optimiser = Field(description="The optimiser of the weights.")
    scheduler: Scheduler = Field(description="How the learning rate changes over the epochs.")
    label_smoothing: float = Field(
        ge=0, lt=1, description="Share of each label's weight that is spread evenly over all classes."
    )
    class_weights: Literal["none", "balanced"] = Field(
        description="Weights of the classes in the loss: equal (none), or inverse to their frequency (balanced)."
    )
    early_stopping: EarlyStopping = Field(description="When training ends before the last epoch.")
    metric: Literal["accuracy", "f1_macro"] = Field(
        description="Metric on the validation split by which the best epoch is chosen."
    )
    augment: Augment = Field(description="Random changes to training samples.")

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        warmup_epochs = self.scheduler.warmup_epochs
        if warmup_epochs >= self.epochs:
            raise ValueError(f"scheduler.warmup_epochs must be less than epochs, {self.epochs}; found {warmup_epochs}")
        return self
