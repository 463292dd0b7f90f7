"""Which images the changes of colours in training can be made to.

Like `config`, this module must import quickly.
"""

from node_robustness.config.models import Augmentation
from node_robustness.errors import UserError


def check_colours(where: str, images: str, settings: Augmentation, channels: int) -> None:
    """Refuse to change colours of images that have none.

    Args:
        where: the key of the settings, for the message.
        images: which images, for the message.
        settings: which changes.
        channels: of the images.

    Raises:
        UserError: colours are to change but the images do not have three channels.
    """
    for key in ("hue", "saturation"):
        if getattr(settings, key) > 0 and channels != 3:
            raise UserError(
                f"{where}.{key}: needs RGB images, and {images} have {channels} channel(s): set it "
                "to 0"
            )
