"""One thread a worker: pytest runs a worker a core, and BLAS threads beside them make the run three times slower."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
