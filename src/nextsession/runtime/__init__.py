"""The runtime: networks that answer without the library that trained them."""
