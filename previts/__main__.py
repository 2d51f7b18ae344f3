"""The entry point of `python -m previts`, which runs the command line."""

from previts.cli import main

main()
