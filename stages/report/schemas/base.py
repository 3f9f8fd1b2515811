"""Types that the schemas of several reports share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReportModel(BaseModel):
    """A report, or a part of a report. Types are strict, numbers must be finite, and undeclared fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Bins(ReportModel):
    """A histogram. Its first bin has no lower edge, and its last bin has no upper edge."""

    edges: list[float] = Field(description="Edges between the bins, in ascending order.")
    ratios: list[Share] = Field(min_length=1, description="Fraction of the values in each bin; the sum is 1.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.ratios) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges need {len(self.edges) + 1} ratios, found {len(self.ratios)}")
        if self.edges != sorted(set(self.edges)):
            raise ValueError("edges must be in ascending order, without duplicates")
        if abs(sum(self.ratios) - 1) > 1e-6:
            raise ValueError("ratios must add up to 1")
        return self
