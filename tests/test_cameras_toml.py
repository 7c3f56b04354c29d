"""`cameras.toml`: what it may say, and that all that is wrong in it is said at once, but no secret."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avad_hf.watching.config import ConfigError, load_config
from avad_hf.watching.settings import (
    CameraConfig,
    CommandConfig,
    EventsConfig,
    EvidenceConfig,
    JsonLinesConfig,
    MqttConfig,
    PageConfig,
    WebhookConfig,
)

WHOLE = """
model = "checkpoints/street"

[[camera]]
name = "gate"
source = "rtsp://viewer:${CAMERA_PASSWORD}@10.0.0.7/stream1"
threshold = 0.6
masks = "MASKS"
anonymise = ["faces", "plates"]

[[camera]]
name = "Tür 2"
source = "/dev/video0"
sound = "hw:1"
model = "someone/yard"
scene = "yard"
gate = true

[page]
host = "0.0.0.0"
port = 9000
token = "${PAGE_TOKEN}"

[evidence]
folder = "evidence"
before = 8
after = 4.5
days = 30
bytes = "20GB"

[events]
release = 0.5
merge = 3
cool_down = 120

[[sink]]
type = "jsonl"
path = "events.jsonl"

[[sink]]
type = "webhook"
url = "https://hook:${HOOK_PASSWORD}@example.org/alerts?key=${HOOK_PASSWORD}"
secret = "${HOOK_PASSWORD}"

[[sink]]
type = "mqtt"
host = "broker"
user = "me@home"
password = "${HOOK_PASSWORD}"
tls = true

[[sink]]
type = "command"
argv = ["sh", "-c", "cat > /dev/null", "${HOOK_PASSWORD}"]
"""
SECRETS = {
    "CAMERA_PASSWORD": "s3cr3t/one",
    "PAGE_TOKEN": "s3cr3t-two-0123456789",
    "HOOK_PASSWORD": "s3cr3t3",
}
CAMERA = '[[camera]]\nname = "gate"\nsource = "/dev/video0"\nmodel = "m"\n'


@pytest.fixture
def environment(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def load(folder, text):
    path = folder / "cameras.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def problems(folder, text):
    with pytest.raises(ConfigError, match=r"cameras\.toml cannot be used:\n  ") as raised:
        load(folder, text)
    assert str(raised.value).count("\n") == len(raised.value.problems)
    return raised.value.problems


def test_a_whole_file(tmp_path, environment):
    masks = tmp_path / "masks.json"
    masks.write_text(json.dumps({"imageWidth": 4, "imageHeight": 4, "shapes": [{"points": [[0, 0], [1, 1]]}]}))
    config = load(tmp_path, WHOLE.replace("MASKS", str(masks)))
    gate, door = config.cameras
    assert gate == CameraConfig(
        name="gate",
        source="rtsp://viewer:s3cr3t/one@10.0.0.7/stream1",
        threshold=0.6,
        masks=str(masks),
        anonymise=("faces", "plates"),
    )
    assert door == CameraConfig(
        name="Tür 2", source="/dev/video0", sound="hw:1", model="someone/yard", scene="yard", gate=True
    )
    assert config.model == "checkpoints/street"
    assert config.page == PageConfig(host="0.0.0.0", port=9000, token=SECRETS["PAGE_TOKEN"])
    assert config.evidence == EvidenceConfig(folder="evidence", before=8.0, after=4.5, days=30.0, bytes=20 * 10**9)
    assert config.events == EventsConfig(release=0.5, merge=3.0, cool_down=120.0)
    secret = SECRETS["HOOK_PASSWORD"]
    assert config.sinks == (
        JsonLinesConfig(path="events.jsonl"),
        WebhookConfig(url=f"https://hook:{secret}@example.org/alerts?key={secret}", secret=secret),
        MqttConfig(host="broker", user="me@home", password=secret, tls=True),
        CommandConfig(argv=("sh", "-c", "cat > /dev/null", secret)),
    )
    assert config.sinks[2].url == f"mqtts://me%40home:{secret}@broker"
    assert not any(secret in repr(config) for secret in SECRETS.values())


def test_a_file_that_says_nothing_but_a_camera(tmp_path):
    config = load(tmp_path, "\ufeff" + CAMERA)
    assert config.page is None and config.evidence is None and config.sinks == ()
    assert config.events == EventsConfig() and config.cameras[0].threshold is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ('host = "::1"\nport = 99', "mqtt://[::1]:99"),
        ('host = "b"\nuser = "u"', "mqtt://u:@b"),
        ('host = "b"', "mqtt://b"),
    ],
)
def test_the_address_of_a_broker(tmp_path, host, url):
    assert load(tmp_path, f'{CAMERA}[[sink]]\ntype = "mqtt"\n{host}\n').sinks[0].url == url


@pytest.mark.parametrize(
    ("size", "count"), [('"20GB"', 20e9), ('"1.5 GiB"', 1.5 * 2**30), ('"700B"', 700), ('"2TB"', 2e12), ("5000", 5000)]
)
def test_sizes(tmp_path, size, count):
    assert load(tmp_path, f'{CAMERA}[evidence]\nfolder = "e"\nbytes = {size}\n').evidence.bytes == count


def sink(kind, rest):
    return f'{CAMERA}[[sink]]\ntype = "{kind}"\n{rest}\n'


REFUSED = {
    "nothing": ("", "the file: there is no [[camera]]. Give at least one, with name and source."),
    "unknown table": (CAMERA + "[pages]\n", 'the file: there is no key "pages". Did you mean page?'),
    "unknown key": (
        CAMERA + "treshold = 1\n",
        '[[camera]] 1 "gate": there is no key "treshold". Did you mean threshold?',
    ),
    "quite unknown": (
        CAMERA + "[events]\nxyz = 1\n",
        '[events]: there is no key "xyz". Known are release, merge, cool_down.',
    ),
    "no name": (
        '[[camera]]\nsource = "-"\nmodel = "m"',
        "[[camera]] 1: name is missing. Give text of 1 to 64 letters.",
    ),
    "no source": (
        '[[camera]]\nname = "a"\nmodel = "m"',
        '[[camera]] 1 "a": source is missing. Give text that is not empty.',
    ),
    "no model": (
        '[[camera]]\nname = "a"\nsource = "-"',
        '"a": model is missing. Give it here, or once at the top of the file.',
    ),
    "empty name": (CAMERA.replace("gate", " "), '[[camera]] 1 " ": name is " ". It must be text of 1 to 64 letters.'),
    "long name": (CAMERA.replace("gate", "x" * 65), "It must be text of 1 to 64 letters."),
    "same name": (CAMERA + CAMERA, '[[camera]] 2 "gate": "gate" is the name of another camera. Give another one.'),
    "same folder": (
        CAMERA + CAMERA.replace("gate", "Gate"),
        '[[camera]] 2 "Gate": "Gate" is the name of another camera. Give another one.',
    ),
    "type": (CAMERA + 'threshold = "high"', 'threshold is "high". It must be a number between 0 and 1.'),
    "threshold": (CAMERA + "threshold = 1.5", "threshold is 1.5. It must be a number between 0 and 1."),
    "true is no number": (CAMERA + "threshold = true", "threshold is true. It must be a number between 0 and 1."),
    "nan": (CAMERA + "threshold = nan", "threshold is nan. It must be a number between 0 and 1."),
    "huge": (CAMERA + f"threshold = 0x{'f' * 5000}", "threshold is a whole number. It must be a number between"),
    "empty scene": (CAMERA + 'scene = ""', 'scene is "". It must be text that is not empty.'),
    "date": (CAMERA + "scene = 2026-11-30", "scene is a date or time. It must be text that is not empty."),
    "release": (
        CAMERA + "threshold = 0.4\n[events]\nrelease = 0.5",
        "threshold is 0.4, and release of [events] is above it. Lower release.",
    ),
    "protocol": (
        CAMERA.replace("/dev/video0", "ftp://host/x"),
        "source is nothing that can be watched. A live source is",
    ),
    "half an address": (
        CAMERA.replace("/dev/video0", "rtsp:/host/x"),
        "source is nothing that can be watched. A live",
    ),
    "sound": (
        CAMERA.replace("/dev/video0", "rtsp://host") + 'sound = "hw:1"',
        "sound cannot be used: sound='hw:1' goes with a device",
    ),
    "masks": (
        CAMERA + 'masks = "missing.json"',
        "masks cannot be used: missing.json holds no masks (FileNotFoundError",
    ),
    "anonymise": (
        CAMERA + 'anonymise = ["hats"]',
        "anonymise cannot be used: 'hats' cannot be hidden by its name. Known are faces",
    ),
    "no list": (CAMERA + 'anonymise = "faces"', 'anonymise is "faces". It must be a list of text.'),
    "a list of numbers": (CAMERA + "anonymise = [1]", "anonymise is a list. It must be a list of text."),
    "camera is no array": (
        'model = "m"\n[camera]\nname = "a"',
        "[camera]: there may be several, and a table was given. Write [[camera]].",
    ),
    "no table": ("page = 3\n" + CAMERA, "[page]: 3 was given. It must be a table."),
    "model": ("model = 3\n" + CAMERA, "the file: model is 3. It must be text that is not empty."),
    "variable": (
        CAMERA + 'scene = "${NOT_SET_HERE}"',
        "scene needs the environment variable NOT_SET_HERE, which is not set. Set it.",
    ),
    "variable in a list": (
        sink("command", 'argv = ["sh", "${NOT_SET_HERE}"]'),
        "argv needs the environment variable NOT_SET_HERE",
    ),
    "no token": (
        CAMERA + '[page]\nhost = "0.0.0.0"',
        '[page]: token is missing, and other machines reach "0.0.0.0". Give one.',
    ),
    "short token": (
        CAMERA + '[page]\ntoken = "abc"',
        "[page]: token is text. It must be text of at least 16 letters.",
    ),
    "port": (CAMERA + "[page]\nport = 70000", "[page]: port is 70000. It must be a whole number between 0 and 65535."),
    "no folder": (CAMERA + "[evidence]\ndays = 3", "[evidence]: folder is missing. Give text that is not empty."),
    "before": (
        CAMERA + '[evidence]\nfolder = "e"\nbefore = 900',
        "before is 900. It must be seconds between 0 and 600.",
    ),
    "days": (CAMERA + '[evidence]\nfolder = "e"\ndays = 0', "days is 0. It must be a number above 0."),
    "bytes": (
        CAMERA + '[evidence]\nfolder = "e"\nbytes = "much"',
        'bytes is "much". It must be a size above 0, such as "20GB".',
    ),
    "merge": (CAMERA + "[events]\nmerge = -1", "[events]: merge is -1. It must be seconds, 0 or more."),
    "no type": (CAMERA + "[[sink]]\n", "[[sink]] 1: type is missing. Give jsonl, webhook, mqtt, command."),
    "another type": (
        CAMERA + '[[sink]]\ntype = "mail"',
        '[[sink]] 1 "mail": type is "mail". Give jsonl, webhook, mqtt, command.',
    ),
    "type is no text": (
        CAMERA + "[[sink]]\ntype = [1]",
        "[[sink]] 1: type is a list. Give jsonl, webhook, mqtt, command.",
    ),
    "no path": (sink("jsonl", ""), '[[sink]] 1 "jsonl": path is missing.'),
    "url": (
        sink("webhook", 'url = "example.org"'),
        "its address cannot be used. The address of a webhook is https:// or http://",
    ),
    "broker": (sink("mqtt", 'host = "a b"'), "its address cannot be used. The address of an MQTT broker is"),
    "topic": (
        sink("mqtt", 'host = "b"\ntopic = "a/#"'),
        'topic is "a/#". It must be text of 1 to 40 letters, digits, - and _.',
    ),
    "tls": (sink("mqtt", 'host = "b"\ntls = "yes"'), 'tls is "yes". It must be true or false.'),
    "password alone": (
        sink("mqtt", 'host = "b"\npassword = "p"'),
        "there is a password, and user is missing. Give it.",
    ),
    "no command": (
        sink("command", 'argv = ["no-such-command-here"]'),
        'there is no command "no-such-command-here". Give its whole path.',
    ),
    "no words": (sink("command", "argv = []"), "argv is a list. It must be a list of text."),
    "no TOML": ("[[camera]\n", "It is no TOML: "),
    "deep": ("a = " + "[" * 100_000, "It is no TOML: RecursionError."),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said(tmp_path, text, said):
    found = problems(tmp_path, text)
    assert len(found) == 1 and said in found[0]


def test_all_problems_are_said_at_once(tmp_path):
    text = '[[camera]]\nname = ""\nsource = "x"\n[page]\nport = -1\nhots = "a"\n[[sink]]\n[[sink]]\ntype = "jsonl"'
    found = problems(tmp_path, text)
    assert [re.match(r"\S+( \d)?", one)[0].rstrip(":") for one in found] == [
        "[page]",
        "[page]",
        "[[camera]] 1",
        "[[sink]] 1",
        "[[sink]] 2",
    ]


def test_other_files(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be used:\n  It cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="It cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        load_config(tmp_path / "large.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="It is no TOML: UnicodeDecodeError"):
        load_config(tmp_path / "binary.toml")


LEAKS = [
    CAMERA.replace("/dev/video0", "ftp://me:WORD@host"),
    CAMERA.replace("/dev/video0", "rtsp:/me:WORD@host"),
    CAMERA.replace("/dev/video0", "rtsp://me:WORD@"),
    CAMERA.replace("/dev/video0", "rtsp://me:WORD@host") + 'sound = "hw:1"',
    CAMERA.replace("/dev/video0", "rtsp://me:WORD@host") + 'scene = 3\nsorce = "rtsp://me:WORD@host"',
    CAMERA.replace('"/dev/video0"', '{ url = "WORD" }'),
    CAMERA.replace('"gate"', '["WORD"]'),
    CAMERA + '[page]\ntoken = "WORD"',
    CAMERA + '[page]\ntoken = ["WORD"]',
    sink("webhook", 'url = "example.org/WORD"\nsecret = 3'),
    sink("webhook", 'url = "https://a:b c@host/WORD"\nsecret = ["WORD"]'),
    sink("mqtt", 'host = "b"\npassword = "WORD"'),
    sink("mqtt", 'host = "me:WORD@b c"\nuser = "WORD"\npassword = ["WORD"]'),
    sink("command", 'argv = ["no-such-command-here", "WORD"]'),
    sink("command", 'argv = "WORD"'),
]


@pytest.mark.parametrize("text", LEAKS, ids=range(len(LEAKS)))
@pytest.mark.parametrize("form", ["tellme", "${PASSWORD}"], ids=["in the file", "in the environment"])
def test_no_secret_is_said(tmp_path, monkeypatch, text, form):
    monkeypatch.setenv("PASSWORD", "tellme")
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text.replace("WORD", form))
    assert "tellme" not in str(raised.value) and "tellme" not in repr(raised.value)
    assert raised.value.__context__ is None


def test_no_path_that_the_environment_holds_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDER", "tellme")
    (found,) = problems(tmp_path, CAMERA + 'masks = "${FOLDER}/masks.json"')
    assert "masks cannot be used: ${FOLDER}/masks.json holds no masks" in found and "tellme" not in found


def test_what_a_terminal_obeys_is_escaped(tmp_path):
    found = problems(tmp_path, CAMERA + '"\\u001b[2J" = 1\nscene = ["a"]')
    assert '"\\x1b[2J"' in found[0] and "\x1b" not in "".join(found)


values = st.recursive(
    st.one_of(
        *(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.just("${HOME}")),
        st.sampled_from(["20GB", "rtsp://a:b@c", "-", "mqtt", "command", "jsonl", "webhook"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        "model",
        "camera",
        "page",
        "evidence",
        "events",
        "sink",
        "name",
        "source",
        "sound",
        "threshold",
        "scene",
        "masks",
        "anonymise",
        "host",
        "port",
        "token",
        "folder",
        "before",
        "after",
        "days",
        "bytes",
        "release",
        "merge",
        "cool_down",
        "type",
        "path",
        "url",
        "secret",
        "user",
        "password",
        "tls",
        "topic",
        "argv",
    ]
)
tables = st.dictionaries(keys, values, max_size=4)
documents = st.dictionaries(keys | st.text(max_size=4), values | tables | st.lists(tables, max_size=3), max_size=6)


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True).encode().decode() if value.isascii() else '"\\u00e9"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    return str(value)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents)
def test_any_tables(tmp_path, document):
    """Whatever they hold, it is a configuration, or an error that says what is wrong."""
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())
    try:
        assert load(tmp_path, text).cameras
    except ConfigError as error:
        assert error.problems


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text(alphabet='[]{}="\n.#a1-:\\', max_size=60).map(str.encode))
def test_garbage(tmp_path, data):
    path = tmp_path / "cameras.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be used"):
        load_config(path)
