"""What a run ran on: the processor, the file system, and what a durable write costs there."""

import os
import platform
import ssl
import time
from pathlib import Path

BLOCK = bytes(4096)
IN_MEMORY = ("tmpfs", "ramfs")
"""File systems on which a sync does nothing, so that no figure is a durable one."""


def describe(folder: Path, server_core: int, load_core: int) -> dict[str, str]:
    """Describe what the run ran on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "cores": f"server on {server_core}, load on {load_core}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "file system": file_system(folder),
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def file_system(folder: Path) -> str:
    """Name the type of the file system that holds `folder`, such as `ext4`."""
    target = folder.resolve()
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4])
        if target.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, after.split()[0]
    return kind


def syncs_per_second(folder: Path, seconds: float) -> float:
    """Append blocks of 4 KiB, each followed by fdatasync, for `seconds`; return the rate."""
    path = folder / "sync-probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        count, began = 0, time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            os.write(handle, BLOCK)
            os.fdatasync(handle)
            count += 1
        return count / (now - began)
    finally:
        os.close(handle)
        path.unlink()
