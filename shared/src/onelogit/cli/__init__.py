"""The commands of `onelogit`, a module each: what it takes, and what it does with the core."""
