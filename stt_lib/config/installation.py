"""Where stt is installed, what it is called there, and where its files go.

In a checkout the program is `python stt.py` and its files stay in the checkout, whatever directory
cron starts it in. Installed with pip it is `stt`, and its files go where the platform expects them.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The directory that contains `stt_lib`."""

IS_CHECKOUT: Final = (ROOT / "stt.py").is_file()

PROGRAM: Final = "python stt.py" if IS_CHECKOUT else "stt"
"""How a person starts the program, for messages that suggest a command."""


def default_log_file() -> Path:
    """`logs/stt.log` in a checkout, else in the platform's directory for logs."""
    if IS_CHECKOUT:
        return ROOT / "logs" / "stt.log"
    import platformdirs

    return platformdirs.user_state_path("stt") / "stt.log"


def default_data_dir() -> Path:
    """`.stt` in a checkout, else the platform's directory for data."""
    if IS_CHECKOUT:
        return ROOT / ".stt"
    import platformdirs

    return platformdirs.user_data_path("stt")
