"""The user's own models: any module from images to logits, unmodified."""
