"""A loaded classifier -> a folder that other libraries and servers load without flags."""
