"""Handle prediction and feedback requests of HTTP and MQTT: take a body, and return a result or raise ProblemError."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from edge_agent.core.config import Config
from edge_agent.inference import input_formats
from edge_agent.inference.engine import Engine, NotLoadedError, OverloadedError, PredictionResult, TooManySamplesError
from edge_agent.inference.input_formats import ProblemError
from edge_agent.inference.model import InferenceError, InputError
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.service_statistics import ServiceStatistics, UnknownClassError, UnknownPredictionError

log = logging.getLogger("edge_agent.front")  # the logger's name becomes the event of its log records


class PredictionHandler:
    """Decode requests, run the engine, count predictions and capture samples. HTTP and MQTT use the same handler."""

    def __init__(
        self, engine: Engine, statistics: ServiceStatistics, config: Config, capture: Capture | None = None
    ) -> None:
        """Store the parts that requests use.

        Args:
            engine: Runs the model.
            statistics: Counts predictions and labels.
            config: The agent's configuration.
            capture: Stores samples for retraining; None if capturing is off.
        """
        self.engine, self.statistics, self.config, self.capture = engine, statistics, config, capture

    async def predict(self, content: bytes, content_type: str) -> tuple[PredictionResult, list[str]]:
        """Return the predictions for a request body, and their ids. Raises ProblemError."""
        loaded = self.engine.loaded
        if loaded is None:
            raise no_release()
        x = input_formats.decode_input(content, content_type, loaded.model.shape, self.config.serve.queue)
        try:
            result = await self.engine.predict(x)
        except OverloadedError as error:
            raise ProblemError(429, str(error), headers={"Retry-After": "1"}) from None
        except TooManySamplesError as error:
            raise ProblemError(413, str(error)) from None
        except InputError as error:
            raise ProblemError(422, str(error)) from None
        except NotLoadedError:
            raise no_release() from None
        except InferenceError as error:
            log.warning("release %s: %s", loaded.release, error)
            raise ProblemError(500, f"the model failed: {error}", release=loaded.release) from None
        ids = self.statistics.remember(result)
        if self.capture is not None:
            self.capture.offer(ids, x, result)
        return result, ids

    def feedback(self, content: bytes) -> dict[str, Any]:
        """Read the id of a prediction and its true class from a request body, and count them. Raises ProblemError."""
        if len(content) > input_formats.SMALL_BYTES:
            raise ProblemError(413, "the body is too large", expected=f"at most {input_formats.SMALL_BYTES} bytes")
        value = input_formats.parse_json(content)
        input_formats.require_known_fields(value, ("id", "label"))
        prediction_id, label = value.get("id"), value.get("label")
        if not isinstance(prediction_id, str) or not isinstance(label, str):
            raise ProblemError(422, "`id` and `label` must be strings", expected={"id": "string", "label": "a class"})
        try:
            response = self.statistics.feedback(prediction_id, label)
        except NotLoadedError:
            raise no_release() from None
        except UnknownPredictionError:
            window = self.config.serve.feedback_window
            raise ProblemError(
                404,
                "unknown prediction",
                found=prediction_id[:80],
                expected=f"one of the last {window} predictions",
            ) from None
        except UnknownClassError:
            assert self.engine.loaded is not None
            expected = list(self.engine.loaded.classes)
            raise ProblemError(422, "unknown class", found=label[:80], expected=expected) from None
        if self.capture is not None:
            self.capture.label(prediction_id, label)
        return response


def no_release() -> ProblemError:
    """Return the error for a request that arrives while no release is loaded."""
    return ProblemError(
        503, "no release is loaded", headers={"Retry-After": "5"}, expected="a release that the service has loaded"
    )


def result_json(result: PredictionResult, ids: list[str]) -> dict[str, Any]:
    """Return the response of POST /predict as a JSON object."""
    classes = result.loaded.classes
    predictions = []
    for prediction_id, row in zip(ids, result.probabilities.tolist(), strict=True):
        confidence = max(row)
        probabilities = dict(zip(classes, row, strict=True))
        name = classes[row.index(confidence)]
        predictions.append(
            {"id": prediction_id, "class": name, "confidence": confidence, "probabilities": probabilities}
        )
    return {
        "predictions": predictions,
        "release": result.release,
        "target": result.target,
        "model_sha256": result.sha256,
    }


def problem(status: int, detail: str, extensions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build a problem document (RFC 9457).

    Args:
        status: HTTP status code.
        detail: The reason, as text for people.
        extensions: Additional members of the document, such as `found` and `expected`.
    """
    title = "Unprocessable Content" if status == 422 else HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **(extensions or {})}
