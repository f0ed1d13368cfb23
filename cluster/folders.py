"""Where things lie: what is costly to make goes to the user's cache folder, a running cluster to the state folder.

Nothing is kept in the checkout, so that `git clean` costs no builds and two checkouts share them.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def cache() -> Path:
    """Built programs and images: may be deleted at any time while the cluster is down, and is then made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuningstudy"


def state() -> Path:
    """One running cluster: its database, certificates, logs, volumes and process ids. `down` deletes it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tuningstudy" / "cluster"


def images() -> Path:
    """Stores of images: as built, and as the node has them."""
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
