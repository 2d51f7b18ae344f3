"""A program that runs a command of the documentation at the size of a test.

Usage: `python at_test_size.py previts|python ARGUMENTS`. The constants below contain all changes to the command. With
PREVITS_DOCS_CHECK=1 nothing is computed: a whole run stops at a root that cannot be written to, and a verb only prints
its help.
"""

import os
import subprocess
import sys

SETTINGS = [
    "video.videos_per_shard=4",
    "saliency.method=rbd",  # Deep-USPS is trained by the tests of the pipeline
    "saliency.every=6",
    "augment.size=64",
    "objective.queue_size=16",
    "objective.batch_norm_groups=1",
    "optim.batch_size=4",
    "optim.epochs=1",
    "evaluation.crop=64",
    "evaluation.resize=72",
]
# The original command trains three arms and runs five benchmarks. The tests of the pipeline do that.
WHOLE_RUN = ["--rows", "1/vgg/previts", "--benchmarks", "davis", "--parts", "1"]
SIZED = ("download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report", "look")
NOWHERE = "/dev/null/root"


def at_test_size(arguments: list[str]) -> list[str]:
    """Return the arguments with the small settings before those of the command, which override them."""
    if "--set" in arguments:
        place = arguments.index("--set") + 1
        return [*arguments[:place], *SETTINGS, *arguments[place:], "--profile", "demo"]
    return [*arguments, "--profile", "demo", "--set", *SETTINGS]


def main(program: str, arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    command = [sys.executable, *(["-m", "previts"] if program == "previts" else [])]
    check = bool(os.environ.get("PREVITS_DOCS_CHECK"))
    whole = arguments[:3] == ["-m", "pipelines", "run-local"]
    if whole and check:
        run = subprocess.run([*command, *arguments, "--root", NOWHERE], capture_output=True, text=True, check=False)
        print(run.stderr, file=sys.stderr)
        return 0 if f"cannot write to {NOWHERE}" in run.stderr else 1
    if whole:
        arguments = at_test_size([*arguments, *WHOLE_RUN])
    elif program == "previts" and check:
        arguments = [arguments[0], "--help"]
    elif program == "previts" and arguments[0] in SIZED:
        arguments = at_test_size(arguments)
    return subprocess.run([*command, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
