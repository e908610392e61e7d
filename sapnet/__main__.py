"""`python -m sapnet COMMAND`, the same as `sapnet COMMAND`."""

from sapnet.cli import main

if __name__ == "__main__":
    main()
