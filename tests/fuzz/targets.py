"""All fuzz targets, and how many of a thousand cases each gets: the cheap ones get the most."""

from support import fuzz_files, fuzz_prompts, fuzz_servers

TARGETS = {each.name: each for part in (fuzz_prompts, fuzz_files, fuzz_servers) for each in part.TARGETS}
SHARES = {
    "server answers": 490,
    "prefix tree": 300,
    "small files": 100,
    "readers": 80,
    "encoder": 20,
    "template": 5,
    "serve requests": 5,
}
