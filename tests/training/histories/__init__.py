"""Real training histories with what was done to each, and the confusion matrix of the watch rules over them."""
