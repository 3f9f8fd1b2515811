"""Types that the schemas of several reports share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReportModel(BaseModel):
    """A report or a part of one: strictly typed, finite numbers, fields that no later stage reads are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Bins(ReportModel):
    """A histogram; the outer bins have no outer edge."""

    edges: list[float] = Field(description="Edges between the bins, ascending.")
    ratios: list[Share] = Field(min_length=1, description="Share of the values in each bin; together 1.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.ratios) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} ratios, not {len(self.ratios)}")
        if self.edges != sorted(set(self.edges)):
            raise ValueError("edges must ascend")
        if abs(sum(self.ratios) - 1) > 1e-6:
            raise ValueError("ratios must add up to 1")
        return self
