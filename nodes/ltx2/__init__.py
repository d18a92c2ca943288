"""LTX-2: text or images to video with sound, in FP8, on memory that the host manages."""
