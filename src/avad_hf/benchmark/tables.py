"""The figures of a benchmark as text: Markdown tables, which read well on a terminal too."""

from collections.abc import Iterable, Sequence
from typing import Any

from .stages import NETWORK_STAGES

ALIGNED_RIGHT = "---:"


def write_tables(result: dict[str, Any]) -> str:
    """Everything that was measured, as one Markdown page.

    Args:
        result: Result of [`~avad_hf.benchmark.run.benchmark`].
    """
    parts = [
        "# avad-hf benchmark",
        machine_line(result),
        settings_line(result),
        times_table(result),
        media_table(result),
        networks_table(result),
        peaks_lines(result),
        cameras_lines(result),
        left_out_lines(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine_line(result: dict[str, Any]) -> str:
    """Machine, versions and date in one sentence."""
    machine = result["machine"]
    versions = machine["packages"]
    shown = [name for name in ("torch", "transformers", "openvino", "nncf", "onnxruntime", "av") if versions[name]]
    parts = [
        f"{machine['cores']} cores of {machine['cpu']}",
        *([f"({', '.join(machine['flags'])})"] if machine["flags"] else []),
        *([f"and {machine['gpu']}"] if machine["gpu"] else []),
    ]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    load = machine["load_average_before"]
    return (
        f"{' '.join(parts)}{memory}, {machine['system']}; Python {machine['python']}, "
        f"{', '.join(f'{name} {versions[name]}' for name in shown)}; {machine['torch_threads']} threads of torch"
        f"{'' if load is None else f'; load average {load:.2f} before'}; {machine['date'][:10]}."
    )


def settings_line(result: dict[str, Any]) -> str:
    """What was scored, and how often."""
    settings = result["settings"]
    weights = settings["model"] or settings["weights"]
    first = next(iter(result["videos"].values()))
    start = result["command_seconds"]
    return (
        f"Weights: {weights}. Video: {settings['video']} as H.264 with AAC, {first['duration_s']:.1f} s at "
        f"{first['fps']:g} frames/s. {settings['rounds']} rounds in turn: times are medians, and a ratio is the "
        f"median of the rounds' ratios.{'' if start is None else f' `avad-hf --help` took {start:.2f} s.'}"
    )


def times_table(result: dict[str, Any]) -> str:
    """From file to scores, a row for each height and backend."""
    heads = ("height", "backend", "seconds (fastest)", "of the video's length", "video s/s", "clips/s")
    heads = (*heads, "times as fast as public parts", "scores differ from torch-float32's by", "peak memory")
    rows = []
    for row in result["times"]:
        ratio, memory = row.get("times_as_fast_as_public_parts"), None
        if row["height"] == result["peak_memory"]["height"]:  # it is measured at that one alone
            memory = result["peak_memory"]["mib"].get(row["backend"])
        difference = row.get("largest_score_difference")
        rows.append(
            (
                f"{row['height']}p",
                row["backend"],
                f"{row['median_seconds']:.2f} ({row['min_seconds']:.2f})",
                f"{row['real_time_factor']:.2f}",
                f"{row['video_seconds_per_second']:.2f}",
                f"{row['clips_per_second']:.2f}",
                "" if ratio is None else f"{ratio:.2f}",
                "" if difference is None else f"{difference:.1e}",
                "" if memory is None else f"{memory:.0f} MiB",
            )
        )
    return table(heads, rows, left=2)


def media_table(result: dict[str, Any]) -> str:
    """Decoding and scaling beside FFmpeg's own, and the sound, a row for each height."""
    heads = (
        "height",
        "decode only, frames/s",
        "decode and scale, FFmpeg alone",
        "frames of avad_hf",
        "share of FFmpeg's",
    )
    rows = []
    for height, media in result["media"].items():
        speed = media["frames_per_second"]
        rows.append(
            (
                height,
                f"{speed['decode']:.0f}",
                f"{speed['decode_and_scale']:.0f}",
                f"{speed['frames']:.0f}",
                f"{media['frames_share_of_reference']:.0%}",
                f"{min(media['seconds']['sound']):.3f} s",
            )
        )
    return table((*heads, "sound of all frames"), rows, left=1)


def networks_table(result: dict[str, Any]) -> str:
    """Seconds a clip of each network, with their shares, and what the video encoder reaches."""
    networks = result["networks"]
    heads = ("backend", *(f"{name.replace('_', ' ')}, s a clip" for name in NETWORK_STAGES))
    heads = (*heads, "video encoder, GFLOP/s", "of the matmul peak", "of the convolution peak", "bound by")
    rows = []
    for name, figures in networks["backends"].items():
        seconds = figures["seconds_per_clip"]
        total = sum(seconds.values())
        rows.append(
            (
                name,
                *(f"{seconds[stage]:.4f} ({seconds[stage] / total:.0%})" for stage in NETWORK_STAGES),
                f"{figures['video_encoder_gflops']:.0f}",
                *(
                    f"{figures[key]:.0%}" if key in figures else "no torch peak"
                    for key in ("share_of_matmul_peak", "share_of_convolution_peak")
                ),
                figures["bound"],
            )
        )
    width, height = networks["frame_size"]
    note = (
        f"Networks alone, on the {networks['num_clips']} clips of {networks['height']}p (frames of {width} x {height} "
        f"pixels, {networks['video_encoder_gflop_per_clip']:.1f} GFLOP a clip in the video encoder):"
    )
    return f"{note}\n\n{table(heads, rows, left=1)}" if rows else ""


def peaks_lines(result: dict[str, Any]) -> str:
    """What the machine can reach at all, in torch."""
    return "\n".join(
        f"- Measured peak of {name}: {peak['matmul_gflops']:.0f} GFLOP/s in a product of matrices, "
        f"{peak['convolution_gflops']:.0f} GFLOP/s in a 3-D convolution (channels last)."
        for name, peak in result["networks"]["peaks"].items()
    )


def cameras_lines(result: dict[str, Any]) -> str:
    """Whether the machine keeps up with several cameras."""
    cameras = result.get("cameras", {"backends": {}})
    return "\n".join(
        f"- {name}: {row['cameras']} cameras of {cameras['height']}p at once: real-time factor "
        f"{row['real_time_factor']:.2f} each, which {'keeps up' if row['keeps_up'] else 'does not keep up'}."
        for name, row in cameras["backends"].items()
    )


def left_out_lines(result: dict[str, Any]) -> str:
    """What was not measured, and why; and what was not measured fairly."""
    lines = []
    threads, cores = result["machine"]["torch_threads"], result["machine"]["cores"]
    if threads < cores:
        lines.append(
            f"- torch was held to {threads} of {cores} cores, perhaps by OMP_NUM_THREADS, and other engines may not "
            "have been: ratios between engines are not fair."
        )
    for name, entry in result["backends"].items():
        if entry["status"] == "left out":
            lines.append(f"- {name} was left out: {entry['reason']}.")
        lines += [f"- {name} failed, {error}" for error in entry.get("errors", ())]
    return "\n".join(lines)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table whose columns are as wide as what they hold, so that it can be read as plain text.

    Args:
        heads: Heads of the columns.
        rows: Cells as text.
        left: How many columns stand on the left; the others are numbers, and stand on the right.
    """
    cells = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(ALIGNED_RIGHT), *(len(row[column]) for row in cells)) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if column < left else "-" * (width + 1) + ":" for column, width in enumerate(widths)
    )
    return "\n".join([line(cells[0]), f"|{rule}|", *(line(row) for row in cells[1:])])


__all__ = ["table", "times_table", "write_tables"]
