"""Using a model that exists: measure it on a data set, classify images, compare it with its teacher."""
