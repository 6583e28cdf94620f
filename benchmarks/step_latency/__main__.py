"""`python -m benchmarks.step_latency`: takes one core before any library counts how many there are."""

import os
import sys

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# JAX warns about every compiler that is started; nothing of JAX runs in the child.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

from benchmarks.step_latency.command import main  # noqa: E402

sys.exit(main())
