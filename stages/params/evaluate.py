"""Parameters of `evaluate`."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from stages.params.common import Block


class Evaluate(Block):
    warmup: int = Field(ge=0, le=1_000_000)
    repeats: int = Field(gt=1, le=10_000_000)
    threads: int = Field(gt=0, le=1024)
    confidence: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _enough_repeats(self) -> Evaluate:
        """Fewer calls have no upper end of the 99th percentile's interval: 0.99 ** repeats <= (1 - confidence) / 2."""
        least = math.ceil(math.log((1 - self.confidence) / 2) / math.log(0.99))
        if self.repeats < least:
            raise ValueError(f"repeats must be at least {least} for a p99 with confidence {self.confidence:g}")
        return self
