"""Which floating point type frozen networks compute in, and why."""

import torch

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def choose_dtype(dtype: torch.dtype | str | None, device: torch.device | str) -> torch.dtype | None:
    """The type that was asked for, by name or as it is; ``"auto"`` stands for what the device has hardware for.

    Raises:
        ValueError: For a name that is no floating point type.
    """
    if dtype == "auto":
        return fastest_dtype(device)[0]
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if found is not None and found not in FLOATS:
        raise ValueError(f"dtype must be 'auto' or a floating point type such as 'float32', got {dtype!r}.")
    return found


def fastest_dtype(device: torch.device | str) -> tuple[torch.dtype, str]:
    """bfloat16 on a device that multiplies it in hardware, else float32; and the reason, in words.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    device = torch.device(device)
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        if known.get("architecture") != "x86_64":
            return torch.float32, "bfloat16 was measured on x86 alone"
        found = [name for name, has in known.items() if name.endswith("bf16") and has is True]
        if found:
            return torch.bfloat16, f"this processor has {found[0]}"
        return torch.float32, "this processor has no instructions for bfloat16"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU has bfloat16"
        return torch.float32, "this GPU has no bfloat16"
    return torch.float32, f"bfloat16 was never measured on {device.type}"


def has_int8_instructions() -> bool:
    """Whether the processor multiplies 8-bit numbers in hardware; it is taken to where nobody knows."""
    known = torch.cpu.get_capabilities()
    names = [name for name in known if name.endswith("vnni")]
    return known.get("architecture") != "x86_64" or any(known[name] for name in names)


def describe(dtype: torch.dtype | str, device: torch.device | str) -> str:
    """What torch computes with, where, and, for a type that was chosen and not given, why, in words."""
    name = str(choose_dtype(dtype, device)).removeprefix("torch.")
    reason = f" ({fastest_dtype(device)[1]})" if dtype == "auto" else ""
    return f"PyTorch, {name}{reason}, on {device}"


__all__ = ["choose_dtype", "describe", "fastest_dtype", "has_int8_instructions"]
