"""``python -m sharedgrad`` is ``sharedgrad``."""

from sharedgrad.cli import main

if __name__ == "__main__":
    main()
