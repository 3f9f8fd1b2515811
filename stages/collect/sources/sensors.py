"""Collect live sensor readings, either by HTTP polling or from MQTT topics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder
from stages.collect.sources.http import get_json, open_session
from stages.collect.sources.threads import run_detached
from stages.collect.sources.url_secrets import redact
from stages.params.collect import HttpPolling, Mqtt, Sensors


async def fetch(source: Sensors, context: Context) -> FetchResult:
    """Collect sensor readings as rows; a reading without a time gets its time of arrival. Raises SourceError."""
    if source.http is not None:
        return (await poll(source.http, context)).build(source.columns)
    assert source.mqtt is not None
    return (await listen(source.mqtt, context)).build(source.columns)


async def poll(http: HttpPolling, context: Context) -> JsonTableBuilder:
    """Request readings from the sensor's URL, as many times as `http.samples` specifies. Raises SourceError."""
    rows = JsonTableBuilder(http.url, context)
    async with open_session(context) as connection:
        for number in range(http.samples):
            if number:
                await asyncio.sleep(http.interval_s)
            rows.add(parse_readings(await get_json(connection, http.url, context), redact(http.url), context))
    return rows


async def listen(mqtt: Mqtt, context: Context) -> JsonTableBuilder:
    """Subscribe to MQTT topics, and collect the readings in the received messages, in order of arrival.

    The protocol is MQTT 5 (OASIS) with quality of service 1. Raises SourceError.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    where = f"mqtt{'s' if mqtt.tls else ''}://{mqtt.host}:{mqtt.port}"
    client = create_client(mqtt, where, lambda item: loop.call_soon_threadsafe(arrived.put_nowait, item), context)
    try:
        await run_detached(lambda: client.connect(mqtt.host, mqtt.port))
    except OSError as error:
        raise context.error(
            f"{where}: {error}",
            "an MQTT broker that accepts connections",
            "check that the broker is running and reachable",
        ) from None
    client.loop_start()
    rows: list[dict[str, Any]] = []
    count = 0
    try:
        async with asyncio.timeout(mqtt.seconds):
            while count < mqtt.messages:
                item = await arrived.get()
                if isinstance(item, Exception):
                    raise item
                topic, payload = item
                rows += message_rows(topic, payload, mqtt, where, context)
                count += 1
    except TimeoutError:  # the messages received so far are the result
        print(f"{context.name}: {count} of {mqtt.messages} messages in {mqtt.seconds:g} s", flush=True)
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    if not count:
        raise context.error(
            f"{where}: no message on {', '.join(mqtt.topics)} for {mqtt.seconds:g} s",
            "at least one message",
            "correct `topics:`, check that a sensor publishes there, or increase `seconds:`",
        )
    builder = JsonTableBuilder(f"{where}/{','.join(mqtt.topics)}", context)
    builder.add(rows)
    return builder


def create_client(mqtt: Mqtt, where: str, deliver: Any, context: Context) -> paho.Client:
    """Return an MQTT client that is not connected yet. When it connects, it subscribes to the topics.

    Args:
        mqtt: The MQTT settings: broker, login and topics.
        where: URL of the broker, for error messages.
        deliver: A function with one argument. The client's thread calls it with the tuple (topic, payload) for each
            message, and with a SourceError if the broker refuses the connection or a subscription.
        context: Provides the time limit for connecting, and the source's name for error messages.

    Raises:
        SourceError: The environment variable for the password is not set.
    """

    def connected(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            remedy = "correct the user's permissions in the broker, or `username:` and `password_env:`"
            deliver(
                context.error(
                    f"{where}: the broker refuses the connection ({reason})", "a broker that accepts this login", remedy
                )
            )
        else:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in mqtt.topics])

    def subscribed(_client: Any, _data: Any, _id: Any, reasons: Any, _properties: Any) -> None:
        for topic, reason in zip(mqtt.topics, reasons, strict=True):
            if reason.is_failure:
                problem = f"{where}/{topic}: the broker refuses the subscription ({reason})"
                deliver(
                    context.error(
                        problem, "a topic to which this user can subscribe", "correct the permissions of the topic"
                    )
                )

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect, client.on_subscribe = connected, subscribed
    client.on_message = lambda _client, _data, message: deliver((message.topic, message.payload))
    client.connect_timeout = context.retry.timeout_s
    if mqtt.tls:
        client.tls_set_context(ssl.create_default_context())
    if mqtt.username is not None:
        if mqtt.password_env is not None and mqtt.password_env not in os.environ:
            raise context.error(
                f"environment variable {mqtt.password_env} is not set",
                "the password of the MQTT user (password_env)",
                "export this variable",
            )
        client.username_pw_set(mqtt.username, os.environ[mqtt.password_env] if mqtt.password_env else None)
    return client


def message_rows(topic: str, payload: bytes, mqtt: Mqtt, where: str, context: Context) -> list[dict[str, Any]]:
    """Convert one MQTT message to rows, and add the columns that are extracted from the message's topic.

    Args:
        topic: Topic of the message.
        payload: A JSON object or a list of JSON objects.
        mqtt: The MQTT settings. Each named group of their regular expression `topic` becomes a column.
        where: URL of the broker, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: The payload is not valid, or the regular expression does not match the topic.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise context.error(
            f"{where}/{topic}: not JSON ({error})", "JSON in UTF-8", "correct the program that publishes the message"
        ) from None
    topic_columns: dict[str, Any] = {}
    if mqtt.topic is not None:
        match = re.search(mqtt.topic, topic)
        if not match:
            raise context.error(
                f"{where}/{topic}: does not match {mqtt.topic}", "a topic that matches `topic:`", "correct `topic:`"
            )
        topic_columns = match.groupdict()
    return [topic_columns | row for row in parse_readings(value, f"{where}/{topic}", context)]


def parse_readings(value: Any, where: str, context: Context) -> list[dict[str, Any]]:
    """Convert a JSON object or a list of JSON objects to rows; a row without a time gets the current time.

    Args:
        value: The JSON value.
        where: URL from which the JSON value was received, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: The value is neither a JSON object nor a list of JSON objects.
    """
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise context.error(
            f"{where}: the value is of type {type(value).__name__}",
            "a JSON object or a list of JSON objects",
            "correct the source",
        )
    time = context.data.time
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return [row if time is None or time in row else {**row, time: now} for row in rows]
