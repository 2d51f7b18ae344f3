"""The pages of the documentation and the code blocks in them."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# In reading order: later commands use the shell variables of earlier ones.
GUIDES = [README, *(ROOT / "docs" / f"{name}.md" for name in ("your-videos", "pretraining", "downstream-tasks"))]
PAGES = [
    *GUIDES,
    *sorted({*(ROOT / "docs").glob("*.md")} - {*GUIDES}),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    ROOT / "k8s" / "README.md",
]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: its page, the line of its first command, its info string and its text."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without comments; continued lines are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for text in lines if (line := re.sub(r"(^|\s)#.*", "", text).strip())]


def blocks() -> list[Block]:
    """Return the code blocks of all pages, in the order of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start(3)) + 1
            found.append(Block(page, line, match[2].strip(), textwrap.dedent(match[3])))
    return found


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())
