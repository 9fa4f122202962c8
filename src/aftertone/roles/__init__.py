"""The processes of one machine: line, delivery, desk, scribe, and the supervisor that keeps them running."""

import os

# Before NumPy is imported: our matrix products are small, and a second OpenBLAS thread that waits for them busily was measured
# to take 82 % of a core at 1,000 recordings, five times what the recordings took.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
