"""Makes checkpoints, engines, pickles and stores that try to reach what is not theirs, or to take without end."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

BEFORE = Path(__file__).parent / "data" / "before"


def copied(kind: str, folder: Path) -> Path:
    """A copy of a small checkpoint, engine or store, to be changed."""
    return Path(shutil.copytree(BEFORE / kind, folder / kind))


def change(path: Path, **settings) -> None:
    """Set some settings of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def _link(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        place = folder / name
        outside = folder.parent / "outside"
        if place.is_dir():
            shutil.move(place, outside)
        elif place.exists():
            outside.mkdir(exist_ok=True)
            shutil.move(place, outside / place.name)
        place.symlink_to(target.format(outside=outside, name=place.name))

    return make


def _pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def _settings(file: str, **settings) -> Callable[[Path], None]:
    return lambda folder: change(folder / file, **settings)


def _index(**files: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
        content = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return make


def _text(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text)


# What is done to a checkpoint of AVACA with its encoders, and what is said of it.
CHECKPOINTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "encoder above": (_settings("processor_config.json", video_encoder="./../x"), "video_encoder is '../x', but must"),
    "encoder at the top": (_settings("processor_config.json", video_encoder=".//etc"), "video_encoder is '/etc', but"),
    "encoder of Windows": (_settings("processor_config.json", audio_encoder="./..\\x"), r"audio_encoder is .*without"),
    "encoder by its path": (_settings("processor_config.json", video_encoder="/etc/x"), "user/name on the Hub"),
    "encoder by a number": (_settings("processor_config.json", audio_encoder=7), "audio_encoder is 7, but must be"),
    "weights by a link": (_link("model.safetensors", "{outside}/{name}"), "model.safetensors', a link that leads out"),
    "config by a link": (_link("video_encoder/config.json", "{outside}/{name}"), "config.json', a link that leads"),
    "encoder by a link": (_link("audio_encoder", "{outside}"), "a folder is 'audio_encoder', a link that leads out"),
    "circle": (_link("model.safetensors", "{name}"), "a link that leads back to itself|is no regular file"),
    "pipe": (_pipe("model.safetensors"), "model.safetensors is no regular file"),
    "index above": (_index(a="../model.safetensors"), r"names is '../model.safetensors', but must be the relative"),
    "index at the top": (_index(a="/dev/zero"), "names is '/dev/zero', but must be"),
    "index of a pickle": (_index(a="pytorch_model.bin"), "names 'pytorch_model.bin', which is no weights file there"),
    "index of numbers": (_index(a=1), "names is 1, but must be"),
    "index of nothing": (_index(), "it has no weight_map"),
    "tokenizer": (
        _settings("processor_config.json", audio_tokenizer={"audio_tokenizer_class": "AutoModel"}),
        "the setting audio_tokenizer would load or compute something else",
    ),
    "tokenizer of its own": (_text("audio_tokenizer_config.json", "{}"), "holds audio_tokenizer_config.json, which"),
    "quantized": (_settings("config.json", quantization_config={"quant_method": "fp8"}), "the setting quantization_"),
    "other weights": (_settings("config.json", transformers_weights="x.safetensors"), "the setting transformers_weig"),
    "other config": (_settings("config.json", configuration_files=["config.1.0.0.json"]), "setting configuration_"),
    "program": (_settings("config.json", attn_implementation="a/kernel"), "the setting attn_implementation would"),
    "template": (_settings("config.json", card="/else/x"), "AvacaConfig has no setting card: that is a part of"),
    "method": (_settings("config.json", describe="x"), "AvacaConfig has no setting describe"),
    "kind of class": (_settings("processor_config.json", processor_class=[1]), "processor_class must be the name of"),
    "kind of part": (_settings("processor_config.json", feature_extractor=3), "feature_extractor must be settings of"),
    "nested": (_text("config.json", "[" * 100_000), "config.json is damaged: it is nested too deeply|is damaged"),
    "list": (_text("processor_config.json", "[]"), "it holds a list in place of names"),
    "many classes": (_settings("config.json", num_labels=10**9), "num_labels must be a whole number within 1"),
    "wide": (_settings("config.json", hidden_size=10**9), "hidden_size must be within 1 and 1048576, got 1000000000"),
    "too many weights": (_settings("config.json", hidden_size=65536), r"asks for \d+ weights, and it may have 268435"),
    "other shape": (_settings("config.json", visual_size=97), r"weights have another shape .* first avaca\.\S+: it"),
    "no number": (_settings("config.json", dmil_weight=float("nan")), "dmil_weight must be a finite number within"),
    "no text": (_settings("config.json", architectures="x"), "architectures must be a list of texts or null, got 'x'"),
    "no classes": (_settings("config.json", id2label={"x": "a"}), "id2label must give class numbers their names"),
    "no type": (_settings("config.json", dtype="uint8"), "dtype must be a floating point type"),
    "no output": (_settings("config.json", return_dict=False), "return_dict must be True in a checkpoint, got False"),
    "huge grid": (_settings("processor_config.json", feature_grid=[10**6, 2]), "feature_grid needs numbers of within"),
}  # fmt: skip


def _array(dtype: bytes, shape: bytes, state: bytes = b"") -> bytes:
    """An array of 24 bytes of zeros in protocol 0, whose type has a state where one is given."""
    made = b"cnumpy\ndtype\n(V" + dtype + b"\nI00\nI01\ntR" + state
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    return empty + b"(I1\n(" + shape + b"t" + made + b"I00\nV" + b"\\u0000" * 24 + b"\ntb."


PICKLES: dict[str, tuple[bytes, str]] = {
    "fields": (_array(b"f8", b"I3\n", b"(I3\nV<\nN(Va\ntNI8\nI1\nI0\ntb"), "the state of its type 'f8' is none of a"),
    "subarray": (
        _array(b"f8", b"I3\n", b"(I3\nV<\n(Vf8\nI9\ntNNI8\nI1\nI0\ntb"),
        "the state of its type 'f8' is",
    ),
    "objects": (_array(b"O8", b"I3\n"), "arrays of the type 'O8', and only numbers and text"),
    "records": (_array(b"V8", b"I3\n"), "arrays of the type 'V8'"),
    "long": (_array(b"f8", b"I1000000000000\n"), r"shape \(1000000000000,\) has 24 bytes and needs 8000000000000"),
    "negative": (_array(b"f8", b"I-3\n"), r"an array of the shape \(-3,\)"),
    "twice": (_array(b"f8", b"I3\n")[:-1] + b"(I1\n(I0\ntcnumpy\ndtype\n(Vf8\ntRI00\nV\ntb.", "fills an array twice"),
    "remembered": (b"\x80\x04Nr\xff\xff\xff\x7f.", "it remembers an object under the number 2147483647"),
    "nested": (b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.", "it has tuples in more than 100 others"),
    "more than there is": (b"\x80\x04\x8e" + (2**50).to_bytes(8, "little") + b"aa.", "but only 3 remain"),
    "function": (b"\x80\x02c_codecs\nencode\nN}V__defaults__\n(ts\x86b.", "it changes a function"),
}


class Touches:
    """A pickle of this makes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def plain_pickle(protocol: int) -> bytes:
    """A pickle of all kinds of values that are read, to be damaged."""
    values = {"a": [1, 2.5, "x", b"\xff", None, (1, 2), {3}], "b": np.float64(1.5), "c": np.arange(6, dtype=">i2")}
    return pickle.dumps(values | {"d": np.zeros((2, 2), order="F"), "e": np.array(["ab", "c"])}, protocol=protocol)


# Words that would break a card: HTML, marks, tables, blocks, metadata and programs.
WORDS = (
    "<script>alert(1)</script>",
    "a | b",
    "one\n\n# two",
    "![x](http://x) [y](javascript:z)",
    "`code` **bold** _it_ ~~no~~",
    "x\n---\nlicense: mit\n---\n",
    "<!-- use -->",
    "{{ cycler.__init__.__globals__ }}{% raw %}",
    "&lt;b&gt; &#x3c;",
    'quote " and \\ and \' and """',
    "# title",
    "- item",
    "1. first",
)
