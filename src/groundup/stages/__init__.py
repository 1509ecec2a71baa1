"""One file per training stage: settings become batches and a loss, and `fit` does the rest."""
