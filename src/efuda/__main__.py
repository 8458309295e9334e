"""`python -m efuda` is the command line."""

from efuda.cli import main

main()
