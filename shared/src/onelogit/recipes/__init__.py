"""Facts about each model family: prompt, read-out, scale, limits, licence and source.

recipe (the form) -> templates -> families (the table);  unsupported (the table of refused models)
"""
