"""`python -m neurocompile` is the command `neurocompile`."""

from neurocompile.cli import main

main()
