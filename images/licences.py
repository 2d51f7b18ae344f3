"""Write the table of licences in docs/licences.md from the metadata of the installed packages: `make licences`.

The lists of the images name the packages. The text around the table is written by hand.
"""

import re
from importlib import metadata
from pathlib import Path

IMAGES = Path(__file__).parent
PAGE = IMAGES.parent / "docs" / "licences.md"
START, END = "<!-- The table is made by `make licences`. -->\n", "<!-- end of the table -->\n"
ORDER = ("data", "train", "launcher", "mlflow")


def licence(package: metadata.PackageMetadata) -> str:
    """Return the licence that a package states: as an SPDX expression, or in the words of its classifiers."""
    if expression := package.get("License-Expression"):
        return expression
    named = [line.split(" :: ")[-1] for line in package.get_all("Classifier", []) if line.startswith("License ::")]
    named = [name for name in named if name != "OSI Approved"]
    if named:
        return ", ".join(named)
    return (package.get("License") or "").strip().partition("\n")[0] or "not stated"


def table() -> str:
    """Return a Markdown table with a line for each package of the images.

    Raises:
        SystemExit: If a package is not installed, or has another version than in the lists.
    """
    images: dict[str, list[str]] = {}
    for image in ORDER:
        for line in (IMAGES / f"{image}.txt").read_text().splitlines():
            if pinned := re.match(r"([\w.-]+)==(\S+)", line):
                images.setdefault(" ".join(pinned.groups()), []).append(image)
    lines = ["| package | version | licence that it states | images |", "|---|---|---|---|"]
    for pinned, names in sorted(images.items()):
        name, version = pinned.split()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here: run `make test`, or reinstall .venv") from None
        if found.version != version:
            raise SystemExit(f"{name} {found.version} is installed, but the images have {version}: reinstall .venv")
        lines.append(f"| {name} | {version} | {licence(found.metadata)} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return docs/licences.md with a new table."""
    before, _, rest = PAGE.read_text().partition(START)
    return before + START + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
