"""Teach a small SlowFast and a small VGGish what synthetic videos show; the first half of train_demo_model.py.

python examples/synthetic_encoders.py work

About half an hour on two cores, and 6 GB of memory. A tenth of the videos is held out, to see what was learnt.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from synthetic_moments import clips, seconds, videos
from torch import Tensor, nn

from avad_hf import SlowFastConfig, SlowFastForVideoClassification, VggishConfig, VggishModel

NUM_CLASSES = 11
Samples = tuple[Tensor, Tensor]


def fit(
    model: nn.Module, name: Callable, known: Samples, held_out: Samples, batch_size: int, epochs: int, rate: float
) -> None:
    """Cross-entropy with AdamW, in which the many normal samples weigh less."""
    inputs, labels = known
    weight = torch.tensor([0.3] + [1.0] * (NUM_CLASSES - 1))
    num_steps = len(labels) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * num_steps, pct_start=0.15)
    for epoch in range(epochs):
        model.train()
        for batch in torch.randperm(len(labels))[: num_steps * batch_size].split(batch_size):
            F.cross_entropy(name(inputs[batch]), labels[batch], weight).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            named = torch.cat([name(part) for part in held_out[0].split(batch_size)]).argmax(dim=1)
        anomalous = held_out[1] > 0
        right, alarms = (named == held_out[1])[anomalous].float().mean(), (named > 0)[~anomalous].float().mean()
        print(f"epoch {epoch + 1}: {right:.3f} of held-out anomalies named, {alarms:.3f} false alarms", flush=True)


def train_encoders(work: Path) -> None:
    """Write work/audio_encoder and work/video_encoder."""
    rows = videos(work)
    held_out, known = rows[: len(rows) // 10], rows[len(rows) // 10 :]

    audio = VggishModel(VggishConfig(hidden_sizes=(8, 16, 32, 64), intermediate_size=64, embedding_size=32))
    head = nn.Linear(32, NUM_CLASSES)
    both = nn.ModuleList([audio, head])
    fit(both, lambda x: head(audio(x.float()).pooler_output), seconds(known), seconds(held_out), 128, 10, 2e-3)
    audio.save_pretrained(work / "audio_encoder")

    sizes = {"stem_width": 12, "fast_ratio": 4, "depths": (1, 1, 1, 1), "pool_size": 1, "dropout": 0.2}
    video = SlowFastForVideoClassification(SlowFastConfig(**sizes, num_labels=NUM_CLASSES))
    video = video.to(memory_format=torch.channels_last_3d)

    def see(pictures: Tensor) -> Tensor:
        pictures = pictures.flip(-1) if video.training and random.random() < 0.5 else pictures
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return video((pictures / 255 - 0.45) / 0.225).logits.float()

    fit(video, see, clips(known), clips(held_out), 16, 12, 1e-3)
    video.slowfast.save_pretrained(work / "video_encoder")


if __name__ == "__main__":
    train_encoders(Path(sys.argv[1]))
