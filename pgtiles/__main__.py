"""The command ``pgtiles``, also as ``python -m pgtiles``."""

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from .shell.cli import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit("the command line needs typer and rich: pip install 'pgtiles[cli]'")
    app()


if __name__ == "__main__":
    main()
