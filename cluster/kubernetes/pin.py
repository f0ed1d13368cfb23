"""Write go.mod and go.sum of this module for one version of Kubernetes: `python cluster/kubernetes/pin.py v1.34.4`.

Kubernetes' own go.mod replaces its libraries by folders of its repository, and Go does not apply the replacements of a
dependency. So we repeat its requirements at the same versions, and replace each of those libraries by its published
copy: k8s.io/api of Kubernetes v1.34.4 is published as v0.34.4.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def go(*arguments: str) -> str:
    """What the go command prints when run in this folder."""
    return subprocess.run(["go", *arguments], cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout


def go_mod(version: str) -> str:
    """The go.mod that builds Kubernetes `version` (as in "v1.34.4") from outside its repository."""
    download = json.loads(go("mod", "download", "-json", f"k8s.io/kubernetes@{version}"))
    theirs = json.loads(go("mod", "edit", "-json", download["GoMod"]))
    published = "v0." + version.removeprefix("v1.")
    lines = [
        f"// Written by pin.py {version}: the requirements of Kubernetes at their own versions. Do not edit.",
        "module tuningstudy.example/cluster/kubernetes",
        "",
        f"go {theirs['Go']}",
        "",
        "require (",
        f"\tk8s.io/kubernetes {version}",
        *(f"\t{module['Path']} {module['Version']}" for module in theirs["Require"]),
        ")",
        "",
        "replace (",
        *(
            f"\t{rule['Old']['Path']} => {rule['Old']['Path']} {published}"
            for rule in theirs["Replace"]
            if rule["New"]["Path"].startswith("./staging/")
        ),
        ")",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Pin to the version named on the command line."""
    if len(sys.argv) != 2 or not sys.argv[1].startswith("v1."):  # noqa: PLR2004
        raise SystemExit("Say which version of Kubernetes, for example: pin.py v1.34.4")
    (HERE / "go.mod").unlink(missing_ok=True)
    content = go_mod(sys.argv[1])
    (HERE / "go.mod").write_text(content)
    go("mod", "tidy")


if __name__ == "__main__":
    main()
