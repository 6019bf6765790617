"""One file for each form: a JSON body -> what to score, and the logits -> the JSON answer."""
