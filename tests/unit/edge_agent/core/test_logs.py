"""A line of the log names its event, or the part of the service that wrote it."""

from __future__ import annotations

import logging

import pytest
from edge_agent.api import http_server, mqtt, predictions, web
from edge_agent.core.logs import Text
from edge_agent.inference import engine
from edge_agent.monitoring import capture, ring, service_statistics

LOGGERS = {
    "edge_agent.capture": capture.log,
    "edge_agent.counts": service_statistics.log,
    "edge_agent.engine": engine.log,
    "edge_agent.front": predictions.log,
    "edge_agent.mqtt": mqtt.log,
    "edge_agent.ring": ring.log,
    "edge_agent.web": web.log,
    "edge_agent.web.http": http_server.log,
}


@pytest.mark.parametrize("event", LOGGERS)
def test_a_record_without_an_event_names_its_part_of_the_service(event: str) -> None:
    """A search for these names finds the lines of older and of newer versions."""
    record = LOGGERS[event].makeRecord(LOGGERS[event].name, logging.WARNING, __file__, 1, "words", (), None)

    assert f" event={event} message=words" in Text().format(record)
