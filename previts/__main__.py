"""`python -m previts` is the command line."""

from previts.cli import main

main()
