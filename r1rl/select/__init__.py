"""`r1rl select`: rejection sampling. Grade completions, filter them, remove duplicates, and report what was
removed.
"""
