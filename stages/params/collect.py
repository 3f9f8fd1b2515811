"""Parameters of `collect`: the snapshot's time and where its rows come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from stages.params.base import Block


class Embedded(Block):
    """A data set that ships inside an installed package; needs no network."""

    type: Literal["embedded"]
    dataset: Literal["sklearn-digits"]


Source = Embedded  # becomes a discriminated union


class Collect(Block):
    """`snapshot` is the time the data stands for; changing it is how new data is taken in."""

    snapshot: Annotated[AwareDatetime, Field(strict=False)]
    sources: dict[str, Source] = Field(min_length=1)
