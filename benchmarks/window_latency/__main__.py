"""See `command`."""

import sys

from benchmarks.window_latency.command import main

sys.exit(main())
