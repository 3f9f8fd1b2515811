"""Handle the bodies of prediction and feedback requests, which arrive over HTTP or MQTT.

The result of a request is returned. A request that fails raises ProblemError.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from edge_agent.core.config import Config
from edge_agent.inference import input_formats
from edge_agent.inference.engine import Engine, NotLoadedError, OverloadedError, PredictionResult, TooManySamplesError
from edge_agent.inference.input_formats import ProblemError
from edge_agent.inference.memory_budget import HeldBytes, OverBudgetError
from edge_agent.inference.model import InferenceError, InputError
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.service_statistics import ServiceStatistics, UnknownClassError, UnknownPredictionError

log = logging.getLogger("edge_agent.front")  # the logger's name becomes the event of its log records


class PredictionHandler:
    """Handle prediction and feedback requests: decode the body, run the model, count the results and capture samples.

    HTTP and MQTT use the same handler.
    """

    def __init__(
        self, engine: Engine, statistics: ServiceStatistics, config: Config, capture: Capture | None = None
    ) -> None:
        """Store the objects that are needed to handle requests.

        Args:
            engine: The engine, which runs the model.
            statistics: The statistics, which count predictions and labels.
            config: The agent's configuration.
            capture: The object that stores samples for retraining; None if capturing is off.
        """
        self.engine, self.statistics, self.config, self.capture = engine, statistics, config, capture

    async def predict(
        self, content: bytes | bytearray, content_type: str, held: HeldBytes
    ) -> tuple[PredictionResult, list[str]]:
        """Run the model on the samples in a request body, and return the result and the id of each prediction.

        Args:
            content: The body.
            content_type: The media type of the body.
            held: The bytes of the body in the engine's budget. From the decoding on, they are the bytes of the samples.

        Raises:
            ProblemError: The request fails.
        """
        loaded = self.engine.loaded
        if loaded is None:
            raise no_release()
        x = input_formats.decode_input(content, content_type, loaded.model.shape, self.config.serve.queue)
        del content  # only `x` may refer to it while the request waits
        try:
            held.resize(x.nbytes)
            result = await self.engine.predict(x, held)
        except (OverBudgetError, OverloadedError) as error:
            raise busy(str(error)) from None
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

    def feedback(self, content: bytes | bytearray) -> dict[str, Any]:
        """Read the id and the true class of an earlier prediction from a request body, and count this feedback.

        Return the JSON object of the response. Raises ProblemError if the request fails.
        """
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


def busy(reason: str) -> ProblemError:
    """Return the error for a request that the service cannot process now."""
    return ProblemError(429, reason, headers={"Retry-After": "1"})


def no_release() -> ProblemError:
    """Return the error for a request that arrives while no release is loaded."""
    return ProblemError(
        503, "no release is loaded", headers={"Retry-After": "5"}, expected="a release that the service has loaded"
    )


def result_json(result: PredictionResult, ids: list[str]) -> dict[str, Any]:
    """Convert the result of a prediction request into the JSON object of the response."""
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
        detail: The reason why the request failed, as text for people.
        extensions: Additional members of the document, such as `found` and `expected`.
    """
    title = "Unprocessable Content" if status == 422 else HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **(extensions or {})}
