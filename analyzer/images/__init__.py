"""Images as people have them, to batches of a model: files, folders, patterns, images of Pillow, arrays of pixels."""

from analyzer.images.load import image_files, load_images

__all__ = ["image_files", "load_images"]
