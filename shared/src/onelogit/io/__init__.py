"""Files and progress bars, for several packages."""
