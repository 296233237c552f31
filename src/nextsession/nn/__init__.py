"""Parts of neural models: jagged batches, embeddings, encoders, networks, losses; needs torch."""
