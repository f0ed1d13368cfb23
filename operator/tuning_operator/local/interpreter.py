"""How a process with torch is started for a manifest: its folder has the person's modules, and is not trusted at the start."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tuning_api.contract import Env

COMMAND = (sys.executable, "-P", "-m", "tuning_trial")
"""NB: without -P, `-m` puts the working folder, which is the manifest's, before the standard library."""


def environment(folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The person's environment, in which modules of a folder are found once Python has started.

    NB: an empty entry of PYTHONPATH, as `$PYTHONPATH:/mine` makes one, is the working folder, and so is a dot.

    Args:
        folder: The manifest's.
        inherited: The person's environment, whose PYTHONPATH is relative to where the command was called.
    """
    entries = [entry for entry in inherited.get("PYTHONPATH", "").split(os.pathsep) if entry]
    known = [str(Path(entry).absolute()) for entry in entries if Path(entry).resolve() != folder.resolve()]
    without = {name: value for name, value in inherited.items() if name != "PYTHONPATH"}
    paths = {"PYTHONPATH": os.pathsep.join(known)} if known else {}
    return without | paths | {Env.CODE.value: str(folder)}
