"""ReplaceMe Studio's library: prune the depth of a transformer and measure what it costs.

Start with `pipeline.run`; the words are in `artifacts`.
"""

import os

# OpenMP's default spinning makes small matrix products many times slower on shared cores; must precede torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
