"""What all tests share."""

import torch

# The tests are small: with more threads they spend their time waiting.
torch.set_num_threads(1)
