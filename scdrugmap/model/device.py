"""Where the network runs and in which arithmetic, and how fast this machine multiplies."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch

from scdrugmap.errors import ResourceError, UsageError

Precision = Literal["float32", "bfloat16"]

_MATMUL_SIZE = 2048
_MATMUL_SIZE_GPU = 8192


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``auto`` takes the first of CUDA, MPS, CPU that is there.

    Raises
    ------
    UsageError
        No such name.
    ResourceError
        This machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(
            f"--device {name!r} is no device", hint="use auto, cpu, cuda, cuda:0 or mps"
        ) from err
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ResourceError(
            f"this machine has {count} {device.type} devices, so not {name}",
            hint="`scdrugmap doctor` shows what there is; --device auto takes the best",
        )
    return device


def resolve_precision(precision: str, device: torch.device) -> tuple[Precision, str]:
    """Return the arithmetic that is really used, and a notice if it is not the one asked for.

    bfloat16 is used on GPUs, and on processors with matrix units for it; others compute it more
    slowly than float32, which is then used instead.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, not {precision!r}")
    if precision == "bfloat16" and device.type == "cpu" and not has_bfloat16_units():
        return (
            "float32",
            "this processor has no bfloat16 matrix units: float32 is used, faster here",
        )
    if (
        precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return "float32", "this GPU does not compute bfloat16: float32 is used"
    return cast("Precision", precision), ""


def has_bfloat16_units() -> bool:
    """Tell whether the processor multiplies bfloat16 matrices in hardware."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    avx = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return any(bool(supported()) for supported in (amx, avx) if supported is not None)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Switch TF32 off inside the block: float32 products keep all their bits on every GPU."""
    before = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute without gradients, in the given precision, inside the block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(exact_float32())
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        stack.enter_context(torch.inference_mode())
        yield


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether an exception means that a batch was too large for the device."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(err)
    return isinstance(err, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def free_memory(device: torch.device) -> None:
    """Give cached blocks back to the device after it ran out of memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use so far: of this process, or of its tensors on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matmul_rate(device: torch.device, *, seconds: float = 0.5) -> float:
    """Measure float32 matrix products.

    Parameters
    ----------
    device : torch.device
    seconds : float
        How long to try; the best single product counts, since other work only slows it down.

    Returns
    -------
    float
        Floating-point operations per second.
    """
    size = _MATMUL_SIZE if device.type == "cpu" else _MATMUL_SIZE_GPU
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=generator).to(device) for _ in range(2))
    best = float("inf")
    with arithmetic(device, "float32"):
        a @ b
        synchronize(device)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or best == float("inf"):
            began = time.perf_counter()
            a @ b
            synchronize(device)
            best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
