"""What all tests share: one thread for each process, and a profile of hypothesis for each place they run."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

from hypothesis import HealthCheck, settings  # noqa: E402 - numerical libraries read the environment when imported

settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,  # the first example pays for compiling
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", parent=settings.get_profile("ci"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
