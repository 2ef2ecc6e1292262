"""`python -m pdsynth` is the command line."""

from pdsynth.cli import main

if __name__ == "__main__":
    main()
