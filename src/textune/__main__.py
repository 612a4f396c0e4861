"""`python -m textune` is the command `textune`."""

from textune.cli.main import main

if __name__ == "__main__":
    main()
