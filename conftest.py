"""Settings that come before any test: the GL library, and one thread for each numeric library.

MuJoCo keeps to the GL library that it finds when it is first imported. Two test processes share two
cores: with more threads each, PyTorch and NumPy wait for one another. A hangup and Ctrl-C end a
process, even if the tests themselves run under nohup or in the background: some tests send them.
"""

import os
import signal

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

from gatort.sim.graphics import choose_gl  # noqa: E402

choose_gl()
