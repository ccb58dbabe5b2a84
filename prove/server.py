"""`grantserver serve` with a part exchanged: `python -m prove.server --with MODULE:FUNCTION`.

The tests of the proof plant bugs with it; the function is called before the server is built.
"""

import argparse
import os

from app import serve, settings
from prove.points import load_wrapper


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m prove.server")
    parser.add_argument("--with", dest="wrapper", metavar="MODULE:FUNCTION", required=True)
    load_wrapper(parser.parse_args().wrapper)()
    serve.run(settings.load(dict(os.environ)))


if __name__ == "__main__":
    main()
