"""What all tests share."""

import os

# Before anything imports torch: the tests are small, and threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
