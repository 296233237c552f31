"""Item indexes: the best items for a query vector without a product with every item, at a recall that was measured."""
