"""`python -m gateway` and the command `smarthost`."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
