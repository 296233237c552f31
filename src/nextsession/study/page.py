"""x"""
from pathlib import Path
def write_page(summary, path): return path
