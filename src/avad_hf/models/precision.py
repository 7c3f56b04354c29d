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
    chosen = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if chosen is not None and chosen not in FLOATS:
        raise ValueError(f"dtype must be 'auto' or a floating point type such as 'float32', got {dtype!r}.")
    return chosen


def fastest_dtype(device: torch.device | str) -> tuple[torch.dtype, str]:
    """bfloat16 on a device that multiplies it in hardware, else float32; and the reason, in words.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    device = torch.device(device)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("architecture") != "x86_64":
            return torch.float32, "bfloat16 was measured on x86 alone"
        bf16_instructions = [name for name, has in capabilities.items() if name.endswith("bf16") and has is True]
        if bf16_instructions:
            return torch.bfloat16, f"this processor has {bf16_instructions[0]}"
        return torch.float32, "this processor has no instructions for bfloat16"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU has bfloat16"
        return torch.float32, "this GPU has no bfloat16"
    return torch.float32, f"bfloat16 was never measured on {device.type}"


def has_int8_instructions() -> bool:
    """Whether the processor multiplies 8-bit numbers in hardware; it is taken to where nobody knows."""
    capabilities = torch.cpu.get_capabilities()
    names = [name for name in capabilities if name.endswith("vnni")]
    return capabilities.get("architecture") != "x86_64" or any(capabilities[name] for name in names)


def describe(dtype: torch.dtype | str, device: torch.device | str) -> str:
    """What torch computes with, where, and, for a type that was chosen and not given, why, in words."""
    name = str(choose_dtype(dtype, device)).removeprefix("torch.")
    reason = f" ({fastest_dtype(device)[1]})" if dtype == "auto" else ""
    return f"PyTorch, {name}{reason}, on {device}"


__all__ = ["choose_dtype", "describe", "fastest_dtype", "has_int8_instructions"]
