"""What all tests share."""

import hypothesis
import torch

# The tests are small: with more threads they spend their time waiting.
torch.set_num_threads(1)

# A busy machine is no failure.
hypothesis.settings.register_profile("timeless", deadline=None)
hypothesis.settings.load_profile("timeless")
