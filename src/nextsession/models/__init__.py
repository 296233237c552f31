"""One file, one model: a file dropped here is registered under its own name."""
