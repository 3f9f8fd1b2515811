"""Define the base class for JSON objects that were written by another program or by another version of this program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, PrivateAttr, model_validator


class Document(BaseModel):
    """A JSON object whose declared fields are checked and whose undeclared fields are kept.

    A newer program may write fields that this class does not declare. `as_json` returns the object exactly as it was
    read, so that it can be passed on or written again without loss.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
    _original: Mapping[str, object] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_original(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        document = handler(value)
        if isinstance(value, Mapping):
            document._original = value
        return document

    def as_json(self) -> dict[str, object]:
        """Return the JSON object from which this document was read, including undeclared fields."""
        return dict(self._original)


def encode(value: object) -> object:
    """Convert a document to a JSON object. Pass this function as the argument `default` of `json.dumps`.

    Raises TypeError if the value is not a document.
    """
    if isinstance(value, Document):
        return value.as_json()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
