"""What the head would decide at every time.

The head was trained on h(1) alone. What it reads from h(t) before is not what the network "thinks"
at t, only what it would say if the body ended there. A linear probe of h(t) itself (`probes`) is
the alternative.
"""

import torch
from torch import Tensor


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of a class minus the largest of the others, [n, T].

    Args:
        logits: [T, n, K].
        classes: of each image, int64 [n].
    """
    index = classes.expand(len(logits), -1)[..., None]
    own = logits.gather(2, index).squeeze(2)
    others = logits.scatter(2, index, -torch.inf).amax(2)
    return (own - others).T


def flip_times(logits: Tensor, clean_logits: Tensor, times: Tensor) -> Tensor:
    """When the decision of a run leaves that of the clean one for good, [n].

    The first of the times from which on the two differ, at every time up to the last; NaN where
    they agree at the last time, or where a logit of that time is not finite. At each time the
    decision is compared with the clean one at the same time, so that a head which knows neither
    image yet has not flipped.

    Args:
        logits: of the run, [T, n, K].
        clean_logits: of the clean run, likewise.
        times: [T].
    """
    differ = logits.argmax(2) != clean_logits.argmax(2)
    finite = (torch.isfinite(logits) & torch.isfinite(clean_logits)).all(2)
    from_here_on = (differ & finite).flip(0).cumprod(0).flip(0).bool()
    first = from_here_on.int().argmax(0)
    found = times.to(logits.device, logits.dtype)[first]
    return torch.where(from_here_on.any(0), found, torch.nan)
