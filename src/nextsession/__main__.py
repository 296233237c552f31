"""`python -m nextsession` is the command `nextsession`."""

from nextsession.cli import main

if __name__ == "__main__":
    main()
