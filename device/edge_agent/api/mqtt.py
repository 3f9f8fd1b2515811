"""Predictions over MQTT 5, where `mqtt.host` is set: a request on `topic_in`, its answer or its problem on `topic_out`.

The payload is what POST /predict takes and gives: JSON, or the content type that the message names. The answer carries
the request's correlation data, so that many may ask at once. Needs paho-mqtt, the agent's extra `mqtt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from edge_agent.api.predictions import PredictionHandler, answer_json, problem
from edge_agent.core.errors import ConfigurationError, FitError
from edge_agent.inference import input_formats
from edge_agent.inference.input_formats import ProblemError

log = logging.getLogger("edge_agent.mqtt")  # the event of its records

QOS = 1
RECONNECT_S = (1, 60)


class Mqtt:
    """One connection, kept up by the library's own thread; predictions are asked for in the event loop's."""

    def __init__(self, handler: PredictionHandler) -> None:
        """Raises ConfigurationError, FitError."""
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
        except ImportError as error:
            raise FitError(
                "mqtt", f"paho-mqtt is not installed ({error})", "it", "install the agent with its extra `mqtt`"
            ) from None
        self._handler, self._config = handler, handler.config.mqtt
        # paho has no types here, and makes its properties' attributes as it goes.
        self._properties: Callable[[], Any] = lambda: Properties(PacketTypes.PUBLISH)
        self._loop = asyncio.get_running_loop()
        self._limit = int(handler.config.serve.body_limit_mb * 1e6)
        self._asked: set[asyncio.Task[None]] = set()
        self.connected = threading.Event()  # and subscribed
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"edge-agent-{handler.config.device.id}", protocol=paho.MQTTv5
        )
        client.on_connect, client.on_disconnect, client.on_message = self._up, self._down, self._arrived
        client.on_subscribe = self._subscribed
        client.reconnect_delay_set(*RECONNECT_S)
        client.max_queued_messages_set(handler.config.serve.queue)
        if self._config.tls:
            client.tls_set()
        if self._config.username:
            client.username_pw_set(self._config.username, self._password())
        self._client = client

    def _password(self) -> str | None:
        name = self._config.password_env
        if name and name not in os.environ:
            raise ConfigurationError("mqtt.password_env", f"{name} is not set", "it in the environment", "set it")
        return os.environ[name] if name else None

    def start(self) -> None:
        """Connect, now or when the broker is there, and again whenever it was away."""
        self._client.connect_async(self._config.host, self._config.port)
        self._client.loop_start()

    async def stop(self) -> None:
        """Answer what is being answered, then go."""
        self._client.unsubscribe(self._config.topic_in)
        if self._asked:
            await asyncio.wait(self._asked, timeout=self._handler.config.serve.request_timeout_s)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # --- in the library's thread ---

    def _up(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt %s:%d refuses: %s", self._config.host, self._config.port, reason)
            return
        client.subscribe(self._config.topic_in, qos=QOS)

    def _subscribed(self, _client: Any, _data: Any, _id: Any, reasons: Any, _properties: Any) -> None:
        """Before this the broker hands over no request; a broker that forbids the topic says so here."""
        at = (self._config.host, self._config.port, self._config.topic_in)
        if any(reason.is_failure for reason in reasons):
            log.warning("mqtt %s:%d refuses the subscription to %s: %s", *at, ", ".join(map(str, reasons)))
            return
        log.info("mqtt %s:%d: listening to %s", *at)
        self.connected.set()

    def _down(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connected.clear()
        if reason.is_failure:
            log.warning("mqtt %s:%d: connection lost (%s)", self._config.host, self._config.port, reason)

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ask, message)

    # --- in the event loop's thread ---

    def _ask(self, message: Any) -> None:
        # Bounded by the engine's queue: what is too much is refused there at once.
        task = self._loop.create_task(self._answer(message))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer(self, message: Any) -> None:
        kind = getattr(message.properties, "ContentType", input_formats.JSON)
        try:
            if len(message.payload) > self._limit:
                raise ProblemError(413, "the message is too large", expected=f"at most {self._limit} bytes")
            value = answer_json(*await self._handler.predict(message.payload, kind))
        except ProblemError as error:
            value = problem(error.status, error.detail, error.extensions)
        except Exception:  # a defect of ours answers one message, and ends no bridge
            log.exception("a request failed")
            value = problem(500, "a defect of the agent; its log says more")
        properties = self._properties()
        properties.ContentType = "application/problem+json" if "status" in value else input_formats.JSON
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation is not None:
            properties.CorrelationData = correlation
        self._client.publish(self._config.topic_out, json.dumps(value), qos=QOS, properties=properties)
