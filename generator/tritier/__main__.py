"""`python -m tritier`."""

from tritier.cli import main

main()
