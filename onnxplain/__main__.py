"""`python -m onnxplain`: the command line."""

import sys

from analyzer.cli.guard import run

if __name__ == "__main__":
    sys.exit(run())
