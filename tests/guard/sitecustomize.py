"""Every kernel that the tests start imports this: a notebook that asks the network or writes elsewhere fails.

Elsewhere is outside the folder it runs in. Temporary files and what Jupyter and matplotlib keep for themselves in the
home folder are no concern. Python reports what it is about to do to audit hooks; conftest.py puts this on the path.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = ("127.0.0.1", "::1", "localhost", "", None)
WRITES = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "os.rmdir": 0, "os.symlink": 1, "os.truncate": 0}
"""Event → which of its arguments is the path that changes."""
KEPT_BY_TOOLS = (".cache", ".config", ".matplotlib", ".ipython", ".jupyter", ".local", "Library")
OWN = [Path.cwd(), Path(tempfile.gettempdir()), Path("/dev"), *(Path.home() / name for name in KEPT_BY_TOOLS)]


def guard(event: str, arguments: tuple) -> None:
    """Refuse connections to other machines, and changes to files that are not a notebook's own."""
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        if isinstance(address, tuple) and address[0] not in HERE:
            raise ConnectionRefusedError(f"a notebook must not need the network; it asked for {address[0]}")
    if event not in WRITES or not isinstance(path := arguments[WRITES[event]], (str, bytes, os.PathLike)):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    path = Path(os.path.realpath(os.fsdecode(path)))
    if "__pycache__" not in path.parts and not any(path.is_relative_to(folder.resolve()) for folder in OWN):
        raise PermissionError(f"a notebook must not write outside its folder; it tried {path}")


if "ipykernel_launcher" in sys.orig_argv:
    sys.addaudithook(guard)
