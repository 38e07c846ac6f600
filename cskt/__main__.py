"""``python -m cskt``: hands over to the command line (``--help`` lists all commands)."""

from cskt.cli.main import main

if __name__ == "__main__":
    main()
