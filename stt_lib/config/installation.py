"""Where stt is installed, what it is called there, and where its files go.

In a checkout the program is `python stt.py` and its files stay in the checkout, whatever directory
cron starts it in. Installed with pip it is `stt`, and its files go where the platform expects them.
"""

from pathlib import Path
from typing import Final

import platformdirs

ROOT: Final = Path(__file__).resolve().parents[2]
"""The directory that contains `stt_lib`."""

IS_CHECKOUT: Final = (ROOT / "stt.py").is_file()

PROGRAM: Final = "python stt.py" if IS_CHECKOUT else "stt"
"""How a person starts the program, for messages that suggest a command."""

INSTALL_STACK: Final = (
    "pip install -r requirements-local.txt" if IS_CHECKOUT else "pip install 'stt[local]'"
)
"""The command that installs the embedded stack."""

LOG_FILE: Final = (
    ROOT / "logs" / "stt.log" if IS_CHECKOUT else platformdirs.user_state_path("stt") / "stt.log"
)
DATA_DIR: Final = ROOT / ".stt" if IS_CHECKOUT else platformdirs.user_data_path("stt")
"""Default directory for the data of the embedded stack."""
