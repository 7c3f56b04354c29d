"""Events to an MQTT broker, where Home Assistant finds each camera by itself."""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from avad_hf.detection.incidents import PLAIN_NAME, plain_name
from avad_hf.files import as_json, shown

from .outbox import NotDelivered, Outbox
from .sinks import parse_address

EXTRA = "pip install 'avad-hf[watch]'"
# Where Home Assistant looks for what announces itself, unless its settings say otherwise.
DISCOVERY_PREFIX = "homeassistant"
# Seconds that the first event waits for the first connection, as paho does.
CONNECT_S = 5.0
# Seconds that the broker has to acknowledge an event.
ACKNOWLEDGE_S = 10.0
# Seconds that the broker has to acknowledge the last message.
FAREWELL_S = 1.0
# Seconds of silence after which the client asks whether the broker is there; twice that, and the will is published.
KEEPALIVE_S = 30
# Seconds between two tries to connect: they begin with the first, and double up to the second.
RECONNECT_S = (1, 60)
# Characters of a camera's name that Home Assistant shows.
SHOWN_CHARACTERS = 80
# The state of what this sink sends to itself: no incident of a camera is open yet.
IDLE = "idle"


class Mqtt:
    """Publishes events, and the state of each camera, at quality of service 1.

    Topics, where NAME is `plain_name` of the camera:

    - ``PREFIX/NAME/event``: each event as JSON.
    - ``PREFIX/NAME/state``, retained: ``open`` (``"ON"`` while an incident is open, else ``"OFF"``), and ``score``,
      ``label``, ``id``, ``start`` and ``end`` of the latest one.
    - ``PREFIX/availability``, retained: ``online``, or ``offline`` as soon as this process ends or is not heard.
    - ``homeassistant/binary_sensor/...`` and ``homeassistant/sensor/...``, retained: by these Home Assistant makes a
      device of each camera, with a sensor that is on while an incident is open and one of its score.

    A run that was killed leaves its state ``ON``, and events that were not sent. The next run sends those, then sets
    the state to ``OFF``.

    Args:
        url: ``mqtt://user:password@host:1883``, or ``mqtts://`` with TLS, checked by the system's certificates
            (the environment variable ``SSL_CERT_FILE`` names others).
        folder: For events that wait.
        cameras: Names of all cameras.
        prefix: What all topics begin with; another one for each watcher on one broker.

    Raises:
        ValueError: If address or prefix cannot be used.
        ImportError: Without the extra.
        OSError: If the folder cannot be written.
    """

    def __init__(self, url: str, folder: str | os.PathLike, cameras: Sequence[str], *, prefix: str = "avad-hf"):
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise ImportError(f"paho-mqtt is not installed, and MQTT needs it. Install it: {EXTRA}") from None
        address = parse_address(url, {"mqtt": 1883, "mqtts": 8883}, "an MQTT broker")
        if not PLAIN_NAME.fullmatch(prefix):
            raise ValueError(f"The prefix of topics is {prefix!r}. Give 1 to 40 letters, digits, - and _.")
        self._cameras, self._prefix = tuple(cameras), prefix
        self._availability = f"{prefix}/availability"
        self._states: dict[str, str] = {}  # payload by topic, as last published
        self._sent: dict[str, Any] | None = None  # the event that was given to the client last
        self._acknowledgements: list[Any] = []  # of its messages
        self._problem = "The broker does not answer."
        self._has_tried = threading.Event()  # to connect
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"avad-hf-{uuid.uuid4().hex[:12]}")
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if address.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self._availability, "offline", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.reconnect_delay_set(*RECONNECT_S)
        self._outbox = Outbox(folder, self._deliver, f"MQTT {address}")
        self.send, self.health = self._outbox.send, self._outbox.health
        for camera in self._cameras:
            self._outbox.send({"camera": camera, "state": IDLE})
        self._client.connect_async(address.host, address.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def close(self) -> None:
        """Deliver what can be delivered within seconds, say ``offline``, and leave."""
        self._outbox.close()
        if self._client.is_connected():
            message = self._client.publish(self._availability, "offline", qos=1, retain=True)
            with suppress(RuntimeError, ValueError):  # the connection ended: the broker publishes the will
                message.wait_for_publish(FAREWELL_S)
        self._client.disconnect()  # its thread ends by itself

    def _deliver(self, event: dict[str, Any]) -> None:
        self._has_tried.wait(CONNECT_S)
        if not self._client.is_connected():
            raise NotDelivered(self._problem)
        # What was not acknowledged the client sends again by itself, after it has reconnected.
        if event != self._sent:
            self._sent, self._acknowledgements = event, self._publish(event)
        deadline = time.monotonic() + ACKNOWLEDGE_S
        try:
            for message in self._acknowledgements:
                message.wait_for_publish(max(0.0, deadline - time.monotonic()))
            is_done = all(message.is_published() for message in self._acknowledgements)
        except (RuntimeError, ValueError):  # the connection ended meanwhile
            self._sent = None
            raise NotDelivered(self._problem) from None
        if not is_done:
            raise NotDelivered(f"The broker did not acknowledge an event within {ACKNOWLEDGE_S:g} s.")
        self._sent = None

    def _publish(self, event: dict[str, Any]) -> list[Any]:
        topic = f"{self._prefix}/{plain_name(event['camera'])}"
        is_event = event["state"] != IDLE
        state = {
            "open": "OFF" if event["state"] in (IDLE, "closed") else "ON",
            **{name: event.get(name) for name in ("score", "label", "id", "start", "end")},
        }
        self._states[f"{topic}/state"] = as_json(state)
        messages = [self._client.publish(f"{topic}/event", as_json(event), qos=1)] if is_event else []
        return [*messages, self._client.publish(f"{topic}/state", as_json(state), qos=1, retain=True)]

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        # The latter is what it is whenever there is no connection from now on.
        refused, lost = f"The broker refuses the connection: {reason}.", "The connection to the broker was lost."
        self._problem = refused if reason.is_failure else lost
        self._has_tried.set()
        if reason.is_failure:
            return
        # A broker that starts anew may have forgotten all. At quality 0, as each connection says all of it again.
        retained = {self._availability: "online", **self._states}
        for camera in self._cameras:
            retained |= self._discovery(camera)
        for topic, payload in retained.items():
            client.publish(topic, payload, retain=True)

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        error = sys.exception()  # paho calls this where it has caught it
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        self._problem = f"The broker cannot be reached: {reason}."
        self._has_tried.set()

    def _discovery(self, camera: str) -> dict[str, str]:
        """What Home Assistant is told of a camera: payload by topic."""
        name = plain_name(camera)
        number = f"{self._prefix}-{name}"
        common = {
            "state_topic": f"{self._prefix}/{name}/state",
            "availability_topic": self._availability,
            "device": {"identifiers": [number], "name": shown(camera)[:SHOWN_CHARACTERS], "manufacturer": "avad-hf"},
            "origin": {"name": "avad-hf"},
        }
        anomaly = {
            "name": "Anomaly",
            "unique_id": f"{number}-anomaly",
            "device_class": "problem",
            "value_template": "{{ value_json.open }}",
            "json_attributes_topic": f"{self._prefix}/{name}/state",
        }
        score = {
            "name": "Score",
            "unique_id": f"{number}-score",
            "state_class": "measurement",
            "value_template": "{{ value_json.score }}",
        }
        return {
            f"{DISCOVERY_PREFIX}/binary_sensor/{number}/anomaly/config": json.dumps(anomaly | common),
            f"{DISCOVERY_PREFIX}/sensor/{number}/score/config": json.dumps(score | common),
        }


__all__ = ["Mqtt"]
