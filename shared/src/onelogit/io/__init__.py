"""Files and progress bars, used by several packages."""
