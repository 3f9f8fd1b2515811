"""Live readings: an HTTP endpoint that is polled, or MQTT topics that are listened to."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from stages.params.collect import HttpPolling, Mqtt, Sensors
from stages.sources.http import get_json, session
from stages.sources.raw import Context, Raw, of_rows, public


async def fetch(source: Sensors, context: Context) -> Raw:
    """Readings as rows; one without a time of its own gets the time of its arrival. Raises SourceError."""
    if source.http is not None:
        return of_rows(await poll(source.http, context), source.http.url, source.columns, context)
    assert source.mqtt is not None
    url = f"mqtt://{source.mqtt.host}:{source.mqtt.port}/{','.join(source.mqtt.topics)}"
    return of_rows(await listen(source.mqtt, context), url, source.columns, context)


async def poll(http: HttpPolling, context: Context) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with session(context) as connection:
        for number in range(http.samples):
            if number:
                await asyncio.sleep(http.interval_s)
            rows += readings(await get_json(connection, http.url, context), public(http.url), context)
    return rows


async def listen(mqtt: Mqtt, context: Context) -> list[dict[str, Any]]:
    """MQTT 5 (OASIS), quality of service 1. The order is that of arrival."""
    import paho.mqtt.client as paho

    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    where = f"mqtt://{mqtt.host}:{mqtt.port}"

    def hand_over(item: Any) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, item)

    def connected(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            hand_over(context.error(f"{where}: the broker refuses ({reason})", "a connection", "mend its rights"))
        else:
            client.subscribe([(topic, paho.SubscribeOptions(qos=1)) for topic in mqtt.topics])

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = connected
    client.on_message = lambda _client, _data, message: hand_over((message.topic, message.payload))
    client.connect_timeout = context.retry.timeout_s
    try:
        await asyncio.to_thread(client.connect, mqtt.host, mqtt.port)
    except OSError as error:
        raise context.error(f"{where}: {error}", "a broker", "see that it is up and reachable") from None
    client.loop_start()
    rows: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(mqtt.seconds):
            for _ in range(mqtt.messages):
                item = await arrived.get()
                if isinstance(item, Exception):
                    raise item
                topic, payload = item
                try:
                    value = json.loads(payload)
                except ValueError as error:
                    raise context.error(f"{where}/{topic}: not JSON ({error})", "JSON", "mend the sender") from None
                rows += readings(value, f"{where}/{topic}", context)
    except TimeoutError:
        pass  # what came in time is what there is; nothing at all is refused by the caller
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    return rows


def readings(value: Any, where: str, context: Context) -> list[dict[str, Any]]:
    """One JSON object or a list of them, as rows. Raises SourceError."""
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise context.error(f"{where}: {type(value).__name__}", "a JSON object or a list of them", "mend the source")
    time = context.data.time
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return [row if time is None or time in row else {**row, time: now} for row in rows]
