"""Where the modules of the person are found who started this without a cluster: in the manifest's folder.

The folder may be somebody else's. Were it on the path from the start, Python would run a sitecustomize.py of it before
anything is checked, and take a json.py of it for its own.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from tuning_api.contract import Env

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def add(environment: MutableMapping[str, str], path: list[str]) -> None:
    """Put the folder behind the standard library and before what is installed, if the environment names one.

    Args:
        environment: Programs that the person's code starts find the folder by it, too.
        path: Where modules are found (`sys.path`).
    """
    folder = environment.pop(Env.CODE, "")
    if not folder:
        return
    installed = (index for index, entry in enumerate(path) if Path(entry).name in _INSTALLED)
    path.insert(next(installed, len(path)), folder)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, environment.get("PYTHONPATH"))))


def add_to_this_process() -> None:
    """See `add`; once, when all that is needed of the standard library and of what is installed is imported."""
    add(os.environ, sys.path)
