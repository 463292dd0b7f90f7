"""Image data: downloads, formats and splits."""
