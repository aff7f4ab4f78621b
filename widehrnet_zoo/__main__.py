"""`python -m widehrnet_zoo`: the command `widehrnet`."""

import sys

from .cli.main import main

sys.exit(main())
