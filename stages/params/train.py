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
    kernel: int = Field(
        gt=0, lt=1024, description="Width of each convolution kernel, in samples or pixels; an odd number."
    )
    pool: int = Field(
        gt=1,
        lt=1024,
        description=(
            "Factor by which the pooling in each block reduces the length, or the height and width, of its input."
        ),
    )
    head: Literal["flatten", "average"] = Field(
        description=(
            "What the hidden layer reads: all outputs of the last block (`flatten`), or their average per "
            "channel (`average`)."
        )
    )
    hidden: Width = Field(description="Number of units of the hidden layer.")
    dropout: float = Field(ge=0, lt=1, description="Fraction of hidden units to drop during training (dropout).")

    @model_validator(mode="after")
    def _odd_kernel(self) -> Cnn:
        if self.kernel % 2 == 0:
            raise ValueError(f"an odd kernel (an even one would shift the samples), not {self.kernel}")
        return self


class Rnn(Block):
    """A recurrent network, which reads a series or a clip along the time axis, or an image from top to bottom."""

    cell: Literal["gru", "lstm"] = Field(description="Type of recurrent cell.")
    hidden: Width = Field(description="Number of units of each layer.")
    layers: Depth = Field(description="Number of recurrent layers.")
    frame: Count = Field(
        description=(
            "Number of samples (for images: pixel rows) that one step reads. "
            "With spectral features, `prepare.features.frame` is used instead."
        )
    )
    hop: Count = Field(
        description=(
            "Number of samples (for images: pixel rows) from one step to the next. With spectral features, "
            "`prepare.features.hop` is used instead."
        )
    )
    pool: Literal["last", "max"] = Field(
        description=(
            "What the classifier reads: the output of the last step (`last`), or each unit's largest output "
            "over all steps (`max`)."
        )
    )
    dropout: float = Field(
        ge=0, lt=1, description="Fraction of the outputs of each layer that are dropped during training."
    )


class Transformer(Block):
    """A transformer encoder, which reads the input as a sequence of patches."""

    width: Width = Field(description="Number of values in a token, which represents one patch; a multiple of `heads`.")
    heads: Width = Field(description="Number of attention heads.")
    layers: Depth = Field(description="Number of encoder layers.")
    feedforward: Width = Field(description="Number of units of the feed-forward part of each layer.")
    patch: Count = Field(
        description=(
            "Size of the patch that becomes one token: pixels per side (images), samples (series, raw audio) "
            "or frames (spectral features)."
        )
    )
    dropout: float = Field(
        ge=0, lt=1, description="Fraction of the outputs of each layer that are dropped during training."
    )

    @model_validator(mode="after")
    def _divisible_width(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"a width that is a multiple of heads, not width {self.width} with heads {self.heads}")
        return self


class Optimiser(Block):
    """The optimiser, which updates the weights."""

    name: Literal["adam", "adamw", "sgd"] = Field(description="Optimisation method.")
    learning_rate: Rate = Field(description="Learning rate after the warm-up.")
    weight_decay: float = Field(ge=0, le=1, description="Coefficient of the weight decay.")


class Scheduler(Block):
    """Change of the learning rate over the epochs."""

    name: Literal["cosine", "step", "plateau", "none"] = Field(
        description=(
            "Schedule of the learning rate after the warm-up. `cosine`: the rate falls to 0 along a cosine curve. "
            "`step`: the rate is multiplied by `factor` after every `step_epochs` epochs. `plateau`: the rate is "
            "multiplied by `factor` after `step_epochs` epochs without improvement. `none`: the rate is constant."
        )
    )
    warmup_epochs: int = Field(
        ge=0, description="Number of epochs in which the learning rate rises from 0 to `optimiser.learning_rate`."
    )
    step_epochs: Count = Field(
        description=(
            "Number of epochs between two reductions (`step`), or without improvement before a reduction (`plateau`)."
        )
    )
    factor: float = Field(gt=0, lt=1, description="Factor by which each reduction multiplies the learning rate.")


class EarlyStopping(Block):
    """Early stopping: the training ends when the validation metric no longer improves."""

    patience: Count = Field(
        description="Training ends after this number of epochs without an improvement of the validation metric."
    )


class Augment(Block):
    """Random changes to training samples. Each value is the maximum change of one kind; 0 turns this kind off."""

    noise: float = Field(
        ge=0,
        le=10,
        description=(
            "Maximum standard deviation of the added Gaussian noise, as a multiple of the channel's scale "
            "(`prepare.scaling`)."
        ),
    )
    rotation_deg: float = Field(ge=0, le=180, description="Maximum rotation, in degrees; for images only.")
    scaling: float = Field(
        ge=0,
        le=10,
        description=(
            "Maximum relative change of an image's size, or of the amplitude of a series or clip; 0.1 is 10 percent."
        ),
    )
    time_shift: float = Field(
        ge=0,
        lt=1,
        description="Maximum shift in time, as a fraction of the sample's length; for series and audio only.",
    )


class Train(Block):
    """The network and how it is trained."""

    network: Literal["cnn", "rnn", "transformer"] = Field(
        description="Type of network; only the block of the same name is used."
    )
    quantile_bins: int = Field(
        ge=0,
        le=1024,
        description=(
            "Number of quantile bins that encode each value of a series; with 0, the network reads scaled values."
        ),
    )
    cnn: Cnn = Field(description="The convolutional network; used if `network` is `cnn`.")
    rnn: Rnn = Field(description="The recurrent network; used if `network` is `rnn`.")
    transformer: Transformer = Field(description="The transformer; used if `network` is `transformer`.")
    epochs: Count = Field(description="Maximum number of epochs.")
    batch_size: int = Field(gt=1, le=2**31 - 1, description="Number of samples per training step.")
    optimiser: Optimiser = Field(description="The optimiser, which updates the weights.")
    scheduler: Scheduler = Field(description="How the learning rate changes over the epochs.")
    label_smoothing: float = Field(
        ge=0, lt=1, description="Label smoothing: fraction of a label's weight that is spread evenly over all classes."
    )
    class_weights: Literal["none", "balanced"] = Field(
        description=(
            "Weights of the classes in the loss: equal (`none`), or inversely proportional to their frequency "
            "(`balanced`)."
        )
    )
    early_stopping: EarlyStopping = Field(description="Condition for ending the training before the last epoch.")
    metric: Literal["accuracy", "f1_macro"] = Field(
        description="Metric on the validation split that determines the best epoch."
    )
    augment: Augment = Field(description="Random changes to training samples.")

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        warmup_epochs = self.scheduler.warmup_epochs
        if warmup_epochs >= self.epochs:
            raise ValueError(
                f"scheduler.warmup_epochs less than {self.epochs} (the number of epochs), not {warmup_epochs}"
            )
        return self
