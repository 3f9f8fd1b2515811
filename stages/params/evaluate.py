"""Parameters of the stage `evaluate`."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from stages.params.common import Block


class Evaluate(Block):
    """Parameters of the latency measurement, and the confidence level of all reported intervals."""

    warmup: int = Field(
        ge=0, le=1_000_000, description="Number of untimed predictions before the timed predictions begin."
    )
    repeats: int = Field(gt=1, le=10_000_000, description="Number of timed predictions, each for a single sample.")
    threads: int = Field(gt=0, le=1024, description="Number of threads that the runtime may use for one prediction.")
    confidence: float = Field(gt=0, lt=1, description="Confidence level of every reported interval, 0 to 1.")

    @model_validator(mode="after")
    def _enough_repeats(self) -> Evaluate:
        """Require enough timed predictions for a confidence interval of the 99th percentile.

        The condition is 0.99 ** repeats <= (1 - confidence) / 2. With fewer predictions, the interval has no upper
        bound.
        """
        least = math.ceil(math.log((1 - self.confidence) / 2) / math.log(0.99))
        if self.repeats < least:
            raise ValueError(
                f"at least {least} repeats, for an interval of the 99th percentile with confidence {self.confidence:g}"
            )
        return self
