"""What every model promises, by theme: one function a promise, whose docstring is the promise."""
