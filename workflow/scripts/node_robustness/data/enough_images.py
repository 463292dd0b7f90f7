"""Check that prepared data have the images that a configuration asks for."""

from collections.abc import Iterable
from pathlib import Path

from node_robustness.config.config import Config
from node_robustness.config.enough_images import shortages
from node_robustness.errors import UserError


def check_prepared(config: Config, prepared: Iterable[tuple[str, str]], results: Path) -> None:
    """Refuse what asks for more images than there are in data of the user's own.

    Args:
        config: the configuration.
        prepared: experiments and their datasets whose data.h5 the run takes as it is.
        results: the folder of all results.

    Raises:
        UserError: more is asked for than there is.
    """
    for experiment, name in prepared:
        path = results / experiment / name / "data.h5"
        if config.datasets[name].size is None and path.is_file():
            # Imported here because it takes a while and few runs need it.
            from node_robustness.data.prepared import count_images

            for line in shortages(config, name, *count_images(path), [experiment]):
                raise UserError(f"config: {line}")
