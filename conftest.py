"""Settings that come before any test: the GL library, and one thread for each numeric library.

MuJoCo keeps to the GL library that it finds when it is first imported. Two test processes share two
cores: with more threads each, PyTorch and NumPy wait for one another.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from gatort.sim.graphics import choose_gl  # noqa: E402

choose_gl()
