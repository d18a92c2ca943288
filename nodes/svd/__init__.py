"""SVD-XT: an image to a short video, on memory that the host manages."""
