"""What can be asked of a server process from outside."""

import os
from pathlib import Path
from urllib.request import urlopen


def is_healthy(url: str) -> bool:
    """Return whether a Whisper server is ready for requests."""
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def private_bytes(pid: int) -> int:
    """Return the bytes of memory that a process does not share; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines() if line.startswith("Private_"))
    return sum(int(line[1]) * 1024 for line in lines)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
