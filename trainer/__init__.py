"""Train a model: data → candidates → gate → signed version → release."""

import os

# By default, OpenMP's threads wait for one another in a loop. Where another process needs a CPU
# meanwhile, a fit that takes 0.05 s then takes seconds. OpenMP reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
