"""What HTTP and MQTT have in common: a body in, an answer or a problem out."""

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

log = logging.getLogger("edge_agent.front")  # the event of its records


class PredictionHandler:
    """Asks the engine, statistics, captures: what HTTP and MQTT have in common."""

    def __init__(
        self, engine: Engine, statistics: ServiceStatistics, config: Config, capture: Capture | None = None
    ) -> None:
        self.engine, self.statistics, self.config, self.capture = engine, statistics, config, capture

    async def predict(self, content: bytes, content_type: str) -> tuple[PredictionResult, list[str]]:
        """The answer to a body, and the ids of its predictions. Raises ProblemError."""
        loaded = self.engine.loaded
        if loaded is None:
            raise no_release()
        x = input_formats.decode_input(content, content_type, loaded.model.shape, self.config.serve.queue)
        try:
            answer = await self.engine.predict(x)
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
        ids = self.statistics.remember(answer)
        if self.capture is not None:
            self.capture.offer(ids, x, answer)
        return answer, ids

    def feedback(self, content: bytes) -> dict[str, Any]:
        """Take the true class of a prediction. Raises ProblemError."""
        if len(content) > input_formats.SMALL_BYTES:
            raise ProblemError(413, "the body is too large", expected=f"at most {input_formats.SMALL_BYTES} bytes")
        value = input_formats.parse_json(content)
        input_formats.require_known_fields(value, ("id", "label"))
        number, label = value.get("id"), value.get("label")
        if not isinstance(number, str) or not isinstance(label, str):
            raise ProblemError(422, "`id` and `label` are text", expected={"id": "text", "label": "a class"})
        try:
            taken = self.statistics.feedback(number, label)
        except NotLoadedError:
            raise no_release() from None
        except UnknownPredictionError:
            window = self.config.serve.feedback_window
            raise ProblemError(
                404, "no such prediction is remembered", found=number[:80], expected=f"one of the last {window}"
            ) from None
        except UnknownClassError:
            assert self.engine.loaded is not None
            expected = list(self.engine.loaded.classes)
            raise ProblemError(422, "no such class", found=label[:80], expected=expected) from None
        if self.capture is not None:
            self.capture.label(number, label)
        return taken


def no_release() -> ProblemError:
    """There is nothing to ask yet."""
    return ProblemError(503, "no release is loaded", headers={"Retry-After": "5"}, expected="an activated release")


def answer_json(answer: PredictionResult, ids: list[str]) -> dict[str, Any]:
    """What /predict answers."""
    classes = answer.loaded.classes
    predictions = []
    for number, row in zip(ids, answer.probabilities.tolist(), strict=True):
        most = max(row)
        probabilities = dict(zip(classes, row, strict=True))
        name = classes[row.index(most)]
        predictions.append({"id": number, "class": name, "confidence": most, "probabilities": probabilities})
    return {
        "predictions": predictions,
        "release": answer.release,
        "target": answer.target,
        "model_sha256": answer.sha256,
    }


def problem(status: int, detail: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """RFC 9457; `found` and `expected` are its extensions here."""
    title = "Unprocessable Content" if status == 422 else HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **(more or {})}
