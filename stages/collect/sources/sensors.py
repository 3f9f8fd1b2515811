"""Live readings: an HTTP endpoint that is polled, or MQTT topics that are listened to."""

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

from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder, redact
from stages.collect.sources.http import get_json, open_session
from stages.collect.sources.threads import run_detached
from stages.params.collect import HttpPolling, Mqtt, Sensors


async def fetch(source: Sensors, context: Context) -> FetchResult:
    """Readings as rows; one without a time of its own gets the time of its arrival. Raises SourceError."""
    if source.http is not None:
        return (await poll(source.http, context)).build(source.columns)
    assert source.mqtt is not None
    return (await listen(source.mqtt, context)).build(source.columns)


async def poll(http: HttpPolling, context: Context) -> JsonTableBuilder:
    rows = JsonTableBuilder(http.url, context)
    async with open_session(context) as connection:
        for number in range(http.samples):
            if number:
                await asyncio.sleep(http.interval_s)
            rows.add(parse_readings(await get_json(connection, http.url, context), redact(http.url), context))
    return rows


async def listen(mqtt: Mqtt, context: Context) -> JsonTableBuilder:
    """MQTT 5 (OASIS), quality of service 1. The order is that of arrival."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    where = f"mqtt{'s' if mqtt.tls else ''}://{mqtt.host}:{mqtt.port}"
    client = create_client(mqtt, where, lambda item: loop.call_soon_threadsafe(arrived.put_nowait, item), context)
    try:
        await run_detached(lambda: client.connect(mqtt.host, mqtt.port))
    except OSError as error:
        raise context.error(f"{where}: {error}", "a broker", "see that it is up and reachable") from None
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
    except TimeoutError:  # what came in time is what there is
        print(f"{context.name}: {count} of {mqtt.messages} messages in {mqtt.seconds:g} s", flush=True)
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    if not count:
        raise context.error(
            f"{where}: no message on {', '.join(mqtt.topics)} for {mqtt.seconds:g} s",
            "at least one",
            "mend `topics:`, see that something publishes there, or listen longer (`seconds:`)",
        )
    together = JsonTableBuilder(f"{where}/{','.join(mqtt.topics)}", context)
    together.add(rows)
    return together


def create_client(mqtt: Mqtt, where: str, hand_over: Any, context: Context) -> paho.Client:
    """A client, not connected yet, that hands over (topic, payload) of each message, or a SourceError."""

    def connected(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            remedy = "mend its rights, or `username:` and `password_env:`"
            hand_over(context.error(f"{where}: the broker refuses ({reason})", "a connection", remedy))
        else:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in mqtt.topics])

    def subscribed(_client: Any, _data: Any, _id: Any, reasons: Any, _properties: Any) -> None:
        for topic, reason in zip(mqtt.topics, reasons, strict=True):
            if reason.is_failure:
                hand_over(context.error(f"{where}/{topic}: refused ({reason})", "a subscription", "mend its rights"))

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect, client.on_subscribe = connected, subscribed
    client.on_message = lambda _client, _data, message: hand_over((message.topic, message.payload))
    client.connect_timeout = context.retry.timeout_s
    if mqtt.tls:
        client.tls_set_context(ssl.create_default_context())
    if mqtt.username is not None:
        if mqtt.password_env is not None and mqtt.password_env not in os.environ:
            raise context.error(
                f"environment variable {mqtt.password_env} is not set", "a password (password_env)", "export it"
            )
        client.username_pw_set(mqtt.username, os.environ[mqtt.password_env] if mqtt.password_env else None)
    return client


def message_rows(topic: str, payload: bytes, mqtt: Mqtt, where: str, context: Context) -> list[dict[str, Any]]:
    """The rows of one message, with what its topic says. Raises SourceError."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise context.error(f"{where}/{topic}: not JSON ({error})", "JSON in UTF-8", "mend the sender") from None
    said: dict[str, Any] = {}
    if mqtt.topic is not None:
        match = re.search(mqtt.topic, topic)
        if not match:
            raise context.error(f"{where}/{topic}: does not match {mqtt.topic}", "a match", "mend `topic:`")
        said = match.groupdict()
    return [said | row for row in parse_readings(value, f"{where}/{topic}", context)]


def parse_readings(value: Any, where: str, context: Context) -> list[dict[str, Any]]:
    """One JSON object or a list of them, as rows. Raises SourceError."""
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise context.error(f"{where}: {type(value).__name__}", "a JSON object or a list of them", "mend the source")
    time = context.data.time
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return [row if time is None or time in row else {**row, time: now} for row in rows]
