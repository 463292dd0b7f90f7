"""The arrays of a dataset: images, [N, C, H, W], and labels, [N]."""

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.int64]
