#!/usr/bin/env python3
"""The one entry: `python3 manage.py up`, `python3 manage.py test`, and every management command."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the reader of this text has an older one
    sys.exit("This desk needs Python 3.11 or newer; this is Python %d.%d." % sys.version_info[:2])  # noqa: UP031 - an older Python must be able to read it

from oms.bootstrap import main

if __name__ == "__main__":
    main(sys.argv)
