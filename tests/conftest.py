"""Before anything loads PyTorch: its waiting threads sleep, as under the command line (see ``hilum.cli.main``)."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
