"""Writes tests/data/before: checkpoints, engines and feature stores of version 0.1.0, and what it made of them.

Run once, with the code before version 0.2 (commit 4c5a5b7), in this environment; the folder must not be there yet:

    git clone . /elsewhere && git -C /elsewhere checkout 4c5a5b7
    PYTHONPATH=/elsewhere/src OMP_NUM_THREADS=1 python tests/data/make_before.py

tests/test_written_before.py loads all of it with the code of today, from the same arrays and pictures.
"""

import hashlib
import json
import os
import tempfile
import wave
from pathlib import Path

import numpy as np

BEFORE = Path(__file__).parent / "before"
TASK = "audio-visual-anomaly"
FPS = 10
# Frames, height and width, seconds of sound (none where there is none), its channels and rate.
CLIPS = {
    "wide": (20, 64, 96, 2.0, 2, 22050),
    "silent": (9, 64, 96, None, 1, 16000),
    "tall": (27, 96, 64, 1.5, 1, 16000),
}


def clip(name: str) -> dict:
    """A clip as arrays, of whole numbers alone, so that it is the same on every machine."""
    count, height, width, seconds, channels, rate = CLIPS[name]
    rng = np.random.default_rng(list(name.encode()))
    frames = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8).repeat(8, axis=1)
    frames = frames.repeat(8, axis=2) // 2 + np.arange(width, dtype=np.uint8)[:, None]
    if seconds is None:
        return {"frames": frames, "fps": FPS}
    samples = rng.integers(-9000, 9000, (channels, int(seconds * rate)), dtype=np.int16)
    # Noise of the first half is low.
    samples[:, : samples.shape[1] // 2] //= 16
    return {"frames": frames, "fps": FPS, "waveform": samples, "sampling_rate": rate}


def write_rows(folder: Path) -> list[dict]:
    """Rows of a data set: the clips as pictures and sound files of always the same bytes, and a stretch of one."""
    from PIL import Image

    rows = []
    for name in CLIPS:
        arrays = clip(name)
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(arrays["frames"]):
            Image.fromarray(frame).save(folder / name / f"{number}.bmp")
        row = {"id": f"scene/{name}", "video": str(folder / name), "fps": FPS, "label": "fight", "anomaly": 1}
        if "waveform" in arrays:
            row["audio"] = str(folder / f"{name}.wav")
            with wave.open(row["audio"], "wb") as file:
                file.setnchannels(len(arrays["waveform"]))
                file.setsampwidth(2)
                file.setframerate(arrays["sampling_rate"])
                file.writeframes(arrays["waveform"].T.astype("<i2").tobytes())
        rows.append(row | {"scene": "scene"})
    return [*rows, rows[0] | {"id": "stretch", "start": 0.4, "end": 1.6, "label": "normal1", "anomaly": 0}]


def digest(tensor) -> str:
    """Type, shape and SHA-256 of the values of a tensor."""
    values = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} {values}"


def settings(config) -> dict:
    """What a config says, as JSON, without this machine and its versions."""
    found = json.loads(json.dumps(config.to_dict()))
    return {name: found[name] for name in found.keys() - {"_name_or_path", "transformers_version"}}


def randomise(model) -> None:
    """Weights, and statistics of batch norms that are not 0 and 1, which keep activations near 1."""
    import torch

    for name, tensor in model.state_dict().items():
        if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.2)
        elif tensor.dim() > 1:
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")


def main() -> None:
    """Write everything."""
    import onnx
    import torch
    from safetensors.torch import save_file
    from transformers import AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline

    from avad_hf import (
        AvacaConfig,
        AvacaForAnomalyDetection,
        AvacaProcessor,
        AvrlConfig,
        AvrlForVideoClassification,
        AvrlProcessor,
        FeatureDataset,
        ResNet3dConfig,
        ResNet3dForVideoClassification,
        SlowFastConfig,
        SlowFastForVideoClassification,
        SlowFastModel,
        VggishConfig,
        VggishFeatureExtractor,
        VggishModel,
        VideoFeatureExtractor,
        export_engines,
        extract_features,
    )
    from avad_hf.hub.folders import weights_hash
    from avad_hf.media.encode import write_video
    from avad_hf.models.engine import files_sha256

    from avad_hf.data.store import recipe_sha256  # isort: skip  # which later code has not

    BEFORE.mkdir()
    os.chdir(BEFORE)
    torch.set_num_threads(1)
    torch.manual_seed(4)
    slowfast = {"num_frames": 8, "stem_width": 2, "fast_ratio": 2, "depths": (1, 1, 1, 1), "pool_size": 2}
    vggish = {"hidden_sizes": (4, 4, 8, 8), "intermediate_size": 16, "embedding_size": 8}
    clips = {name: clip(name) for name in CLIPS}
    tensors, facts = {}, {"configs": {}, "weights_sha256": {}, "recipe_sha256": {}, "digests": {}, "results": {}}

    # Encoders
    model = SlowFastForVideoClassification(
        SlowFastConfig(**slowfast, id2label={0: "walk", 1: "run", 2: "fall"}, notice="Random weights.")
    )
    randomise(model)
    model.save_pretrained("slowfast")
    VideoFeatureExtractor(num_frames=8, size=48).save_pretrained("slowfast")

    model = ResNet3dForVideoClassification(
        ResNet3dConfig(
            stem_width=3,
            depths=(1, 1, 1, 1),
            shortcut_type="A",
            rescale_factor=1.0,
            image_mean=(114.7748, 107.7354, 99.475),
            image_std=(1.0, 1.0, 1.0),
            num_labels=4,
        )
    )
    randomise(model)
    model.save_pretrained("resnet3d")
    VideoFeatureExtractor(
        num_frames=4, size=(40, 48), rescale_factor=1.0, image_mean=model.config.image_mean, image_std=(1.0, 1.0, 1.0)
    ).save_pretrained("resnet3d")

    model = VggishModel(VggishConfig(**vggish, activate_embeddings=False))
    randomise(model)
    model.save_pretrained("vggish")
    VggishFeatureExtractor().save_pretrained("vggish")

    # AVACA
    video_encoder = SlowFastModel(SlowFastConfig(**slowfast, notice="Random video encoder."))
    audio_encoder = VggishModel(VggishConfig(**vggish))
    randomise(video_encoder)
    randomise(audio_encoder)
    processor = AvacaProcessor(
        VggishFeatureExtractor(), video_encoder, audio_encoder, size=48, clip_stride=6, feature_grid=(1, 2)
    )
    model = AvacaForAnomalyDetection(
        AvacaConfig(
            visual_size=video_encoder.config.hidden_size,
            audio_size=8,
            num_audio_steps=8,
            hidden_size=16,
            intermediate_size=24,
            threshold=0.55,
            threshold_origin="chosen by hand",
            recipe_sha256=recipe_sha256(processor.recipe()),
            notice="Random detector.",
        )
    ).eval()
    randomise(model)
    with torch.no_grad():
        logits = model(**processor([clips["wide"], clips["tall"]])).logits
        model.classifier.bias -= logits[logits > -1e6].median()
    model.save_pretrained("avaca")
    processor.save_pretrained("avaca")

    # AVRL
    model = AvrlForVideoClassification(
        AvrlConfig(
            video_config={"stem_width": 3, "depths": (1, 1, 1, 1)},
            audio_config=vggish,
            fusion="concat_norm",
            hidden_sizes=(16, 8),
            id2label={0: "run", 1: "fight", 2: "normal1"},
            normal_labels=["normal1"],
            threshold=0.6,
        )
    )
    randomise(model)
    model.save_pretrained("avrl")
    AvrlProcessor(VggishFeatureExtractor(), num_frames=4, size=(40, 48), window_s=1.0).save_pretrained("avrl")

    with tempfile.TemporaryDirectory() as folder:
        # Engines, which are compared on a video
        video, arrays = Path(folder, "clip.mp4"), clips["wide"]
        times = [number / FPS for number in range(len(arrays["frames"]))]
        sound = arrays["waveform"] / 32768, arrays["sampling_rate"]
        write_video(video, zip(times, arrays["frames"], strict=True), (96, 64), FPS, samples=sound, repeatable=True)
        export_engines("avaca", "avaca-openvino", calibrate=[video])
        export_engines("avaca", "avaca-onnx", format="onnx", calibrate=[video])
        export_engines("avrl", "avrl-openvino", calibrate=[video])
        # torch notes in graphs of ONNX which line of which file on this machine each node is from.
        for graph in Path("avaca-onnx").rglob("model.onnx"):
            exported = onnx.load(graph, load_external_data=False)
            for node in exported.graph.node:
                del node.metadata_props[:]
            onnx.save(exported, graph)
            record = json.loads((graph.parent / "engine.json").read_text())
            record["sha256"] = files_sha256(graph.parent)
            (graph.parent / "engine.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        # Stores
        rows = write_rows(Path(folder, "videos"))
        for kind in ("avaca", "avrl"):
            done = extract_features(rows, AutoProcessor.from_pretrained(kind), f"{kind}-store")
            assert (done.num_stored, done.failed) == (4, [])

    # What they give
    def note(name: str, model) -> None:
        facts["weights_sha256"][name] = weights_hash(model)
        if "-" not in name:  # those of engines are the same
            facts["configs"][name] = settings(model.config)

    with torch.no_grad():
        for name in ("slowfast", "resnet3d"):
            inputs = AutoFeatureExtractor.from_pretrained(name)(clips["wide"])
            model = AutoModelForVideoClassification.from_pretrained(name)
            note(name, model)
            facts["digests"][name] = {"pixel_values_videos": digest(inputs["pixel_values_videos"])}
            tensors[f"{name}/logits"] = model(**inputs).logits
            for key, value in AutoModel.from_pretrained(name)(**inputs).items():
                tensors[f"{name}/{key}"] = value
        model = AutoModel.from_pretrained("vggish")
        note("vggish", model)
        sound = clips["tall"]["waveform"][0] / np.float32(32768)
        log_mel = AutoFeatureExtractor.from_pretrained("vggish")(sound, sampling_rate=16000)["input_features"]
        tensors["vggish/input_features"] = log_mel
        for key, value in model(log_mel[:, :96]).items():
            tensors[f"vggish/{key}"] = value

        for name in ("avaca", "avaca-openvino", "avaca-onnx", "avrl", "avrl-openvino"):
            pipe = pipeline(TASK, model=name, device="cpu", dtype="float32")
            facts["results"][name] = {clip_name: pipe(arrays) for clip_name, arrays in clips.items()}
            processor = AutoProcessor.from_pretrained(name)
            model = AutoModelForVideoClassification.from_pretrained(name)
            note(name, model)
            for role in ("video_encoder", "audio_encoder"):
                if hasattr(processor, role):
                    note(f"{name}/{role}", getattr(processor, role))
            facts["recipe_sha256"][name] = recipe_sha256(processor.recipe())
            inputs = processor(list(clips.values()))
            exact = ("pixel_values_videos", "audio_frame_mask", "clip_mask", "clip_times", "has_audio")
            facts["digests"][name] = {key: digest(inputs[key]) for key in exact if key in inputs}
            for key, value in {**inputs, **model(**inputs)}.items():
                # Without the sound of AVRL, which is large.
                if key not in (*exact, "input_features"):
                    tensors[f"{name}/{key}"] = value.clone()
    for name in ("avaca-store", "avrl-store"):
        dataset = FeatureDataset(name)
        facts["recipe_sha256"][name] = recipe_sha256(dataset.recipe)
        for index, row in enumerate(dataset.rows):
            facts["digests"][f"{name}/{row['id']}"] = {key: digest(value) for key, value in dataset[index].items()}
    save_file(tensors, "expected.safetensors")
    Path("expected.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
