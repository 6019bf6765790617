"""What this process holds now: memory, threads, files and sockets. On Linux."""

import ctypes
import os
import sys
import threading

from onelogit.benchmarking.machine import resident_bytes

_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    """Glibc's `struct mallinfo2`: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


def held() -> dict[str, int | None]:
    """By name; `allocated_bytes` is what `malloc` gave and did not get back, without gaps, which are resident, too."""
    links = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  names only
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
        except OSError:
            continue
    return {
        "resident_bytes": resident_bytes("VmRSS"),
        "allocated_bytes": _allocated_bytes(),
        "python_blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "system_threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "files": sum(not link.startswith("socket:") for link in links),
        "sockets": sum(link.startswith("socket:") for link in links),
    }


def _allocated_bytes() -> int | None:
    """The sum over all threads' arenas; None without glibc 2.33 or newer."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)
