"""Live readings: an endpoint that is polled, and topics of a real MQTT broker."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.servers import Cut, Stall, Status, WebServer, free_port, mqtt_broker
from tests.support.stages.collect import configure, provenance, read_snapshot, refuse, succeed

pytestmark = pytest.mark.slow  # each waits for a broker

READING = {"machine": "m1", "time": "2026-01-01T00:00:00Z", "flow": 1.5, "pressure": 2.0, "state": "0"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mqtt_broker(tmp_path_factory.mktemp("broker")) as port:
        yield port


def polled(url: str, samples: int, columns: dict[str, str] | None = None) -> dict[str, Any]:
    return {"type": "sensors", "http": {"url": url, "interval_s": 0.01, "samples": samples}, "columns": columns}


def received(port: int, *topics: str, columns: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    mqtt = {"host": "127.0.0.1", "port": port, "topics": list(topics), "messages": 2, "seconds": 10.0}
    return {"type": "sensors", "mqtt": mqtt | more, "columns": columns}


@contextlib.contextmanager
def published(port: int, *messages: tuple[str, Any]) -> Iterator[None]:
    """Publish `messages` when there is a subscriber: without one, MQTT 5 acknowledges with another code."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    ended = threading.Event()

    def publish() -> None:
        for topic, value in messages:
            payload = value if isinstance(value, bytes) else json.dumps(value)
            while not ended.is_set():
                sent = client.publish(topic, payload, qos=1)
                code = _acknowledged(client, sent.mid)
                if code == 0:
                    break
                ended.wait(0.02)

    codes: dict[int, int] = {}
    arrived = threading.Condition()

    def on_publish(_client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with arrived:
            codes[mid] = reason.value
            arrived.notify_all()

    def _acknowledged(_client: Any, mid: int) -> int:
        with arrived:
            arrived.wait_for(lambda: mid in codes, timeout=5)
            return codes.get(mid, -1)

    client.on_publish = on_publish
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        client.disconnect()
        client.loop_stop()


def test_an_endpoint_is_polled(workspace: Path, web: WebServer) -> None:
    count = iter(range(10))
    url = web.put("/now", lambda _query: json.dumps(READING | {"flow": next(count)}).encode(), "application/json")
    configure(workspace, plant=polled(url, samples=3))

    succeed()

    assert read_snapshot("plant")["flow"].to_pylist() == [0.0, 1.0, 2.0]
    assert provenance()["sources"]["plant"]["origins"][0]["url"] == url
    assert len(web.requests_for("/now")) == 3


def test_a_reading_without_a_time_gets_that_of_its_arrival(workspace: Path, web: WebServer) -> None:
    readings = [{name: value for name, value in READING.items() if name != "time"}] * 2
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    configure(workspace, plant=polled(web.put_json("/now", readings), samples=1))

    succeed()

    after = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert len(read_snapshot("plant")) == 2
    assert all(before <= time <= after for time in read_snapshot("plant")["time"].to_pylist())


def test_a_poll_retries_after_a_failure_and_selects_columns(workspace: Path, web: WebServer) -> None:
    url = web.put_json("/now", {"F": 1, "M": 7, "T": "2026-01-01T02:00:00+02:00", "other": True})
    web.fail("/now", Status(503), Cut(3))
    configure(workspace, plant=polled(url, 1, {"F": "flow", "M": "machine", "T": "time"}))

    succeed()

    assert str(read_snapshot("plant").to_pylist()) == (
        "[{'flow': 1.0, 'machine': '7', 'time': datetime.datetime(2026, 1, 1, 0, 0)}]"
    )


@pytest.mark.parametrize(
    ("content", "faults", "words"),
    [
        (b"[1]", [], "list"),
        (b"[]", [], "no rows received"),
        (b"flow=1", [], "not JSON"),
        (b"[" * 200_000, [], "not JSON"),
        (b"{}", [Stall(0)] * 3, "no response for 0.3 s"),
        (b'{"flow": 1}', [], "column machine is missing; the columns are flow, time"),
    ],
)
def test_an_endpoint_that_is_refused(
    workspace: Path,
    web: WebServer,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    faults: list[Any],
    words: str,
) -> None:
    url = web.put("/now", content, "application/json")
    web.fail("/now", *faults)
    configure(workspace, plant=polled(url, 1, {"machine": "machine"} if b"flow" in content else None))

    report = refuse(capsys)

    assert words in report
    assert url in report


def test_topics_are_received(workspace: Path, broker: int) -> None:
    """A message has one reading or a list of readings; a part of the topic is a column."""
    no_machine = {name: value for name, value in READING.items() if name != "machine"}
    pattern = r"^hall/(?P<machine>[^/]+)/"
    configure(workspace, plant=received(broker, "hall/+/now", "other/#", topic=pattern))

    with published(broker, ("hall/p1/now", no_machine), ("hall/p2/now", [no_machine, no_machine | {"flow": 3}])):
        succeed()

    assert read_snapshot("plant")["machine"].to_pylist() == ["p1", "p2", "p2"]
    assert read_snapshot("plant")["flow"].to_pylist() == [1.5, 1.5, 3.0]
    assert provenance()["sources"]["plant"]["origins"][0]["url"] == f"mqtt://127.0.0.1:{broker}/hall/+/now,other/#"


def test_messages_within_the_time_limit_are_kept(
    workspace: Path, broker: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(workspace, plant=received(broker, "few", messages=50, seconds=1.5, columns={"machine": "machine"}))

    with published(broker, ("few", READING)):
        succeed()

    assert read_snapshot("plant").to_pylist() == [{"machine": "m1"}]
    assert "plant: 1 of 50 messages in 1.5 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"flow=1", "now: not JSON"),
        (b"\xff", "now: not JSON"),
        (b"[" * 200_000, "now: not JSON"),
        (b"3", "now: the value is of type int"),
        (b"[]", "no rows received"),
    ],
)
def test_a_message_that_is_refused(
    workspace: Path, broker: int, capsys: pytest.CaptureFixture[str], payload: bytes, words: str
) -> None:
    configure(workspace, plant=received(broker, "now", messages=1))

    with published(broker, ("now", payload)):
        report = refuse(capsys)

    assert words in report


def test_a_topic_that_does_not_match_is_refused(
    workspace: Path, broker: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(workspace, plant=received(broker, "now", topic="hall/(?P<machine>.+)"))

    with published(broker, ("now", READING)):
        report = refuse(capsys)

    assert "/now: does not match hall/(?P<machine>.+)" in report


def test_silence(workspace: Path, broker: int, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, plant=received(broker, "nobody/publishes", seconds=0.3))

    report = refuse(capsys)

    assert f"mqtt://127.0.0.1:{broker}: no message on nobody/publishes for 0.3 s" in report
    assert "increase `seconds:`" in report


def test_a_missing_broker_is_reported(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, plant=received(free_port(), "now"))

    report = refuse(capsys)

    assert "Connection refused" in report
    assert "expected: an MQTT broker that accepts connections" in report


@pytest.mark.parametrize("topic", ["", "a/#/b", "a/b+", "a#"])
def test_an_invalid_topic_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str], topic: str) -> None:
    configure(workspace, plant=received(1883, topic))

    assert "an MQTT topic filter, in which each + is a whole level and # can only be the last level" in refuse(capsys)


def test_a_broker_with_passwords(
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    login = {"username": "collector", "password_env": "PLANT_PASSWORD"}
    with mqtt_broker(tmp_path_factory.mktemp("broker"), users={"collector": "t0psecret"}) as port:
        configure(workspace, plant=received(port, "now", **login))
        monkeypatch.delenv("PLANT_PASSWORD", raising=False)
        assert "environment variable PLANT_PASSWORD is not set" in refuse(capsys)

        monkeypatch.setenv("PLANT_PASSWORD", "wrong t0psecret")
        report = refuse(capsys)
        assert "the broker refuses the connection (Not authorized)" in report
        assert "t0psecret" not in report

        monkeypatch.setenv("PLANT_PASSWORD", "t0psecret")
        configure(workspace, plant=received(port, "now", seconds=0.5, **login))
        assert "no message on now" in refuse(capsys)  # logged in, but without messages


def test_a_broker_with_tls(
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("broker")
    certificate = self_signed(folder)
    with mqtt_broker(folder, tls=True) as port:
        configure(workspace, plant=received(port, "now", tls=True, seconds=1.0))
        assert "certificate verify failed" in refuse(capsys)

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert f"mqtts://127.0.0.1:{port}: no message on now" in refuse(capsys)


def self_signed(folder: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 where the broker reads them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "certificate.pem"
