"""``python -m aftertone`` is the command ``aftertone``."""

from aftertone.cli import main

if __name__ == "__main__":
    main()
