"""Inference with trained models: evaluation on a data set, classification of images, comparison with a teacher."""
