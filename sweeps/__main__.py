"""`python -m sweeps ...` is the `evenkeel` command where nothing is installed but the dependencies."""

from sweeps.cli import main

main()
