"""The break-glass kit: gets an engineer onto a host when the CA is gone. BREAK-GLASS.md is its manual.

Runs with Python 3.11 and OpenSSH alone; `jit-ssh-ca break-glass kit` makes one file of this directory.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs it may have an older one, and must not see a syntax error
    sys.exit("break-glass: error: this needs Python 3.11 or newer\nhint: try python3.11, python3.12, …")

from breakglass.main import main

sys.exit(main())
