"""Predictions over MQTT 5 if `mqtt.host` is set: read requests from `topic_in`, and publish responses on `topic_out`.

Payloads have the formats of POST /predict: JSON, or the content type that the message declares. If a request fails, the
response is a problem document. A response repeats the request's correlation data, so that many clients can share the
topics. This module needs paho-mqtt, which the agent's extra `mqtt` installs.
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

from edge_agent.api.predictions import PredictionHandler, problem, result_json
from edge_agent.core.errors import ConfigurationError, FitError
from edge_agent.inference import input_formats
from edge_agent.inference.input_formats import ProblemError
from edge_agent.inference.memory_budget import OverBudgetError

log = logging.getLogger("edge_agent.mqtt")  # the logger's name becomes the event of its log records

QOS = 1
RECONNECT_S = (1, 60)


class Mqtt:
    """The agent's connection to the MQTT broker.

    A thread of paho-mqtt maintains the connection, and the event loop's thread handles the requests.
    """

    def __init__(self, handler: PredictionHandler) -> None:
        """Prepare the connection to the broker; `start` opens it.

        Raises FitError if paho-mqtt is not installed, and ConfigurationError if the environment variable with the
        password is not set.
        """
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
        except ImportError as error:
            raise FitError(
                "mqtt", f"paho-mqtt is not installed ({error})", "paho-mqtt", "install the agent with its extra `mqtt`"
            ) from None
        self._handler, self._config = handler, handler.config.mqtt
        # paho declares no types here and creates the properties' attributes dynamically.
        self._properties: Callable[[], Any] = lambda: Properties(PacketTypes.PUBLISH)
        self._loop = asyncio.get_running_loop()
        self._limit = int(handler.config.serve.body_limit_mb * 1e6)
        self._requests: set[asyncio.Task[None]] = set()
        self.connected = threading.Event()  # set while the bridge is connected and subscribed
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"edge-agent-{handler.config.device.id}", protocol=paho.MQTTv5
        )
        client.on_connect, client.on_disconnect, client.on_message = (
            self._on_connect,
            self._on_disconnect,
            self._on_message,
        )
        client.on_subscribe = self._on_subscribe
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
            raise ConfigurationError(
                "mqtt.password_env",
                f"{name} is not set",
                "the password of the MQTT broker in this environment variable",
                f"set {name} for the service",
            )
        return os.environ[name] if name else None

    def start(self) -> None:
        """Start the thread that connects to the broker and that reconnects whenever the connection is lost."""
        self._client.connect_async(self._config.host, self._config.port)
        self._client.loop_start()

    async def stop(self) -> None:
        """Stop receiving requests, finish the requests in progress, and disconnect from the broker."""
        self._client.unsubscribe(self._config.topic_in)
        if self._requests:
            await asyncio.wait(self._requests, timeout=self._handler.config.serve.request_timeout_s)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # --- called in paho-mqtt's thread ---

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt %s:%d refused the connection: %s", self._config.host, self._config.port, reason)
            return
        client.subscribe(self._config.topic_in, qos=QOS)

    def _on_subscribe(self, _client: Any, _data: Any, _id: Any, reasons: Any, _properties: Any) -> None:
        """Handle the broker's reply to the subscription: set `connected` if it was accepted, or log the refusal."""
        at = (self._config.host, self._config.port, self._config.topic_in)
        if any(reason.is_failure for reason in reasons):
            log.warning("mqtt %s:%d refused the subscription to %s: %s", *at, ", ".join(map(str, reasons)))
            return
        log.info("mqtt %s:%d: subscribed to %s", *at)
        self.connected.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connected.clear()
        if reason.is_failure:
            log.warning("mqtt %s:%d: connection lost (%s)", self._config.host, self._config.port, reason)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._accept, message)

    # --- called in the event loop's thread ---

    def _accept(self, message: Any) -> None:
        # The number of tasks is limited, because the engine immediately refuses requests when its queue is full.
        task = self._loop.create_task(self._respond(message))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _respond(self, message: Any) -> None:
        content_type = getattr(message.properties, "ContentType", input_formats.JSON)
        try:
            with self._handler.engine.memory.hold() as held:
                if len(message.payload) > self._limit:
                    raise ProblemError(413, "the message is too large", expected=f"at most {self._limit} bytes")
                held.resize(len(message.payload))
                value = result_json(*await self._handler.predict(_take_payload(message), content_type, held))
        except OverBudgetError as error:
            value = problem(429, str(error))
        except ProblemError as error:
            value = problem(error.status, error.detail, error.extensions)
        except Exception:  # a defect of the agent must fail only one message, not the bridge
            log.exception("a request failed")
            value = problem(500, "internal error of the agent; see its log")
        properties = self._properties()
        properties.ContentType = "application/problem+json" if "status" in value else input_formats.JSON
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation is not None:
            properties.CorrelationData = correlation
        self._client.publish(self._config.topic_out, json.dumps(value), qos=QOS, properties=properties)


def _take_payload(message: Any) -> bytes:
    """Return the payload of a message, and remove it from the message, so that its memory can be freed early."""
    payload: bytes = message.payload
    message.payload = b""
    return payload
