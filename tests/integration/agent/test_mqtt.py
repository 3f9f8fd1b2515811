"""Predictions through a real MQTT broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from edge_agent.api.mqtt import Mqtt
from edge_agent.api.predictions import PredictionHandler
from edge_agent.core.config import Config
from edge_agent.core.errors import ConfigurationError
from edge_agent.inference.engine import Engine
from edge_agent.monitoring.service_statistics import ServiceStatistics
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.agent.serving import RELEASE, device, installed, run
from tests.support.servers import free_port, mqtt_broker

pytestmark = pytest.mark.slow  # each starts a broker

IN, OUT = "plant/requests", "plant/responses"


def settings(folder: Path, port: int, **more: Any) -> Config:
    return device(folder, mqtt={"host": "127.0.0.1", "port": port, "topic_in": IN, "topic_out": OUT, **more})


class Client:
    """A client that sends requests over MQTT 5 and receives the responses."""

    def __init__(self, port: int) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        subscribed: queue.Queue[Any] = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_subscribe = lambda *_: subscribed.put(True)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe(OUT, qos=1)
        subscribed.get(timeout=20)

    def ask(self, payload: bytes, correlation: bytes | None = None, kind: str | None = None) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if correlation is not None:
            properties.CorrelationData = correlation
        if kind is not None:
            properties.ContentType = kind
        self.client.publish(IN, payload, qos=1, properties=properties)

    async def receive(self) -> Any:
        return await asyncio.to_thread(self.messages.get, timeout=20)


@contextlib.contextmanager
def asking(port: int) -> Iterator[Client]:
    client = Client(port)
    try:
        yield client
    finally:
        client.client.disconnect()
        client.client.loop_stop()


@contextlib.asynccontextmanager
async def agent(config: Config, wait: bool = True) -> Any:
    """Start an agent with a loaded release; yield it, its statistics and its connected bridge."""
    loaded = installed(config)
    engine = Engine(config.serve)
    statistics = ServiceStatistics(config).attach(engine)
    await engine.swap(loaded)
    bridge = Mqtt(PredictionHandler(engine, statistics, config))
    bridge.start()
    if wait:
        assert await asyncio.to_thread(bridge.connected.wait, 20)
    yield loaded, statistics, bridge
    await bridge.stop()
    await engine.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with mqtt_broker(tmp_path) as port:
        yield port


def test_each_answer_finds_its_request(tmp_path: Path, port: int) -> None:
    xs = np.random.default_rng(1).normal(size=(20, 2, 16)).astype(np.float32)

    async def main() -> None:
        async with agent(settings(tmp_path, port)) as (loaded, statistics, _bridge):
            with asking(port) as client:
                for i, x in enumerate(xs):
                    client.ask(json.dumps({"input": x.tolist()}).encode(), bytes([i]))
                answers = {}
                for _ in xs:
                    message = await client.receive()
                    assert message.properties.ContentType == "application/json"
                    answers[message.properties.CorrelationData[0]] = json.loads(message.payload)
            expected = loaded.model.predict(xs)
            for i in range(len(xs)):
                (prediction,) = answers[i]["predictions"]
                assert answers[i]["release"] == RELEASE
                np.testing.assert_allclose(list(prediction["probabilities"].values()), expected[i], atol=1e-5)
            assert statistics.report()["inferences"] == len(xs)

    run(main)


def test_a_bad_request_gets_a_problem(tmp_path: Path, port: int) -> None:
    async def main() -> None:
        async with agent(settings(tmp_path, port)) as _:
            with asking(port) as client:
                client.ask(b"{", b"a")
                message = await client.receive()
                problem = json.loads(message.payload)
                assert (problem["status"], message.properties.CorrelationData) == (400, b"a")
                assert message.properties.ContentType == "application/problem+json"
                client.ask(bytes(7), kind="application/octet-stream")
                message = await client.receive()
                assert json.loads(message.payload)["expected"] == "a multiple of 128 bytes"
                assert not hasattr(message.properties, "CorrelationData")

    run(main)


def test_a_broker_that_starts_later_and_disconnects(tmp_path: Path) -> None:
    """The agent starts without a broker, connects later, loses the connection and reconnects."""
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port))

    async def main() -> None:
        async with agent(settings(tmp_path, port), wait=False) as (_loaded, _counts, bridge):
            # The first connection is closed before it is established, as by a broker that is starting.
            await asyncio.to_thread(lambda: listener.accept()[0].close())
            assert not bridge.connected.is_set()
            listener.close()
            for attempt in ("first", "second"):
                folder = tmp_path / attempt
                folder.mkdir()
                with mqtt_broker(folder, port=port):
                    assert await asyncio.to_thread(bridge.connected.wait, 30)
                    with asking(port) as client:
                        client.ask(json.dumps({"input": np.zeros((2, 16)).tolist()}).encode())
                        assert json.loads((await client.receive()).payload)["release"] == RELEASE
                while bridge.connected.is_set():
                    await asyncio.sleep(0)

    run(main)


def test_a_broker_that_forbids_the_topic_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CONNACK and SUBACK of MQTT 5; 0x87 means not authorized. (mosquitto grants every subscription.)"""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(bytes.fromhex("20 03 00 00 00"))
        subscribe = connection.recv(1000)
        connection.sendall(bytes.fromhex("90 04") + subscribe[2:4] + bytes.fromhex("00 87"))
        connection.recv(1000)  # until the agent disconnects
        connection.close()

    async def main() -> None:
        async with agent(settings(tmp_path, port), wait=False) as (_loaded, _counts, bridge):
            broker = asyncio.create_task(asyncio.to_thread(serve))
            while not caplog.records:
                await asyncio.sleep(0.01)
            assert f"refused the subscription to {IN}: Not authorized" in caplog.text
            assert not bridge.connected.is_set()
        await broker

    run(main)
    listener.close()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        config = settings(tmp_path, 1883, username="agent", password_env="NOT_SET_HERE")  # noqa: S106  (a name, no password)
        engine = Engine(config.serve)
        with pytest.raises(ConfigurationError, match="NOT_SET_HERE is not set"):
            Mqtt(PredictionHandler(engine, ServiceStatistics(config), config))

    run(main)
