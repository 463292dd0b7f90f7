"""How far the search of a batch has come, from the forward passes that it makes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def report_progress(
    models: Iterable[nn.Module],
    passes: int,
    images: int,
    progress: Callable[[int], object] | None,
) -> Iterator[None]:
    """Report images while models are asked about them, and the rest once the block has ended.

    All images of a batch are searched side by side: a share of the passes is the same share of each
    of them. It is a lower bound, since images that are done early make the later passes cheaper.

    Args:
        models: whose passes count.
        passes: how many the block makes at most.
        images: how many there are to be reported, whatever the number of passes.
        progress: called with numbers of images, whose sum is `images`; None: nobody asks.
    """
    if progress is None:
        yield
        return
    made = reported = 0

    def note(*_: object) -> None:
        nonlocal made, reported
        made += 1
        done = images * min(made, passes) // passes
        if done > reported:
            progress(done - reported)
            reported = done

    hooks = [model.register_forward_hook(note) for model in dict.fromkeys(models)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if images > reported:
        progress(images - reported)
